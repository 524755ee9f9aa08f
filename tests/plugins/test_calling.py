"""Calls of extensions: timed, ended when they take too long, and switched off when they fail again and again."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from webui.plugins.call_record import CallRecord
from webui.plugins.calling import FAILED, IMPORT, Bound, Budgets, Caller
from webui.plugins.conduct import Conduct, Journal, State
from webui.plugins.watchdog import HookTimeout, Running, _raise_in, settle

QUICK = Budgets(start_s=0.3, call_s=0.3, grace_s=0.3)
HERE = Path(__file__)


def bound(caller: Caller, function: Callable[..., Any], hook: str = "before_job") -> Bound:
    conduct = caller.journal.conducts.setdefault("mine", Conduct(name="mine", root=HERE))
    return caller.bind(hook, "extension mine", function, (), conduct)


@pytest.fixture(params=["main thread", "another thread", "abandoned"])
def on(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[..., Any]], tuple[Any, Caller]]]:
    """Calls a function as the worker does, as an engine in a library does, and as the server does."""
    let_go = threading.Event()

    def call(function: Callable[..., Any]) -> tuple[Any, Caller]:
        caller = Caller(Journal(), QUICK, abandons=request.param == "abandoned")
        results: list[Any] = []
        if request.param == "another thread":
            thread = threading.Thread(target=lambda: results.append(caller.call(bound(caller, function), {})))
            thread.start()
            thread.join()
        else:
            results.append(caller.call(bound(caller, function), {}))
        return results[0], caller

    yield call
    let_go.set()


def for_ever() -> None:
    while True:
        pass


def stubborn() -> None:
    ends = time.perf_counter() + 1
    while time.perf_counter() < ends:
        try:
            for_ever()
        except BaseException:
            continue


@pytest.mark.parametrize("function", [for_ever, stubborn])
def test_a_call_that_never_ends_is_ended_and_switched_off(on: Any, function: Callable[..., Any]) -> None:
    result, caller = on(function)
    assert result is FAILED
    problem, off = caller.journal.problems
    assert "extension mine: before_job took more than 0.3 s and was ended" in problem.sentence
    assert problem.file == HERE.name and problem.line
    assert off.sentence == "The extension mine hung and is switched off until the next start."
    assert caller.call(bound(caller, lambda: 5), {}) is FAILED
    assert caller.journal.conducts["mine"].state is State.SWITCHED_OFF


def test_sleeping_is_ended_where_a_signal_can(monkeypatch: pytest.MonkeyPatch) -> None:
    caller = Caller(Journal(), QUICK)
    assert caller.call(bound(caller, lambda: time.sleep(30)), {}) is FAILED
    assert "took more than" in caller.journal.problems[0].sentence
    assert signal.getsignal(signal.SIGURG) not in (signal.SIG_DFL, signal.SIG_IGN)


def test_the_server_leaves_behind_what_waits_inside_of_c() -> None:
    caller = Caller(Journal(), QUICK, abandons=True)
    waited = threading.Event()
    assert caller.call(bound(caller, waited.wait), {}) is FAILED
    assert caller.journal.conducts["mine"].state is State.SWITCHED_OFF
    waited.set()


def test_the_call_around_is_ended_not_the_one_inside() -> None:
    caller = Caller(Journal(), QUICK)
    inner = caller.bind("register_samplers", "extension mine", for_ever, (), caller.journal.conducts.get("mine"))
    conduct = caller.journal.conducts["inner"] = Conduct(name="inner", root=HERE)
    inner = Bound("after_job", "extension inner", for_ever, (), conduct, budget_s=30)
    assert caller.call(bound(caller, lambda: caller.call(inner, {})), {}) is FAILED
    assert [problem.extension for problem in caller.journal.problems] == ["mine", "mine"]
    assert not conduct.is_off


def test_a_call_that_ends_just_as_it_is_told_to_leaves_nothing_behind() -> None:
    running = Running("before_job", threading.get_ident(), 0.0, None)
    running.is_over = running.firing = True  # the watchdog saw it running a moment ago

    def tell() -> None:
        time.sleep(0.05)
        running.fired += 1
        _raise_in(running.thread, HookTimeout)
        running.firing = False

    late = threading.Thread(target=tell)
    late.start()
    settle(running)
    late.join()
    assert sum(range(10_000)) == 49_995_000, "nothing is raised any more between two instructions"


def test_the_record_forgets_calls_inside_of_one_that_is_over() -> None:
    here = CallRecord.create()
    marks = [CallRecord.mark("mine", hook, "x.py", 1.0) for hook in ("before_job", "progress", "step_done")]
    depths = [here.begin(mark, time.perf_counter()) for mark in marks]
    here.end(depths[1])
    call = here.read()
    assert call is not None and call.hook == "before_job"
    here.end(depths[0])
    assert here.read() is None
    here.drop()


def test_a_call_within_its_time_is_left_alone_and_counted(on: Any) -> None:
    result, caller = on(lambda: 5)
    assert result == 5 and caller.journal.problems == []
    (report,) = caller.journal.report()
    assert report.hooks["before_job"]["calls"] == 1
    assert report.hooks["before_job"]["total_s"] >= report.hooks["before_job"]["longest_s"] > 0
    time.sleep(3 * QUICK.call_s)
    assert caller.journal.problems == []


class Odd(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def deep() -> None:
    deep()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (Odd(), "Odd: (its words cannot be read)"),
        (ValueError("\x1b[2J" + "x" * 5000), "xxx…"),
    ],
)
def test_whatever_is_raised_is_caught(error: BaseException, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)  # as in the worker

    def raises() -> None:
        raise error

    caller = Caller(Journal(), QUICK)
    assert caller.call(bound(caller, raises), {}) is FAILED
    (problem,) = caller.journal.problems
    assert said in problem.sentence and "\x1b" not in problem.sentence and len(problem.sentence) < 500
    assert (problem.extension, problem.hook, problem.file) == ("mine", "before_job", HERE.name)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT as in a terminal: a shell starts what runs in its background with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_of_a_person_goes_through(ctrl_c: None) -> None:
    def raises() -> None:
        raise KeyboardInterrupt

    caller = Caller(Journal(), QUICK)
    with pytest.raises(KeyboardInterrupt):
        caller.call(bound(caller, raises), {})
    assert caller.journal.problems == []
    assert caller.call(bound(caller, lambda: 5), {}) == 5


def test_recursion_without_end_is_caught() -> None:
    caller = Caller(Journal(), QUICK)
    assert caller.call(bound(caller, deep), {}) is FAILED
    assert "RecursionError" in caller.journal.problems[0].sentence


def test_the_third_failure_switches_off_and_success_does_not_make_up_for_one() -> None:
    caller = Caller(Journal(), QUICK)
    bad, good = bound(caller, lambda: 1 // 0), bound(caller, lambda: 5, "after_job")
    for _ in range(2):
        assert caller.call(bad, {}) is FAILED
        assert caller.call(good, {}) == 5
    assert caller.call(bad, {}) is FAILED
    assert caller.call(good, {}) is FAILED
    assert [problem.sentence for problem in caller.journal.problems][1:] == [
        "The extension mine failed 3 times and is switched off until the next start."
    ]
    (report,) = caller.journal.report()
    assert (report.state, report.failures) == ("switched off", 3)
    assert report.hooks["after_job"]["calls"] == 2


def test_an_import_that_hangs_is_left_out() -> None:
    caller = Caller(Journal(), QUICK, abandons=True)
    conduct = caller.journal.conducts["mine"] = Conduct(name="mine", root=HERE)
    assert caller.run(conduct, IMPORT, for_ever) is FAILED
    assert "The extension mine was left out: its import took more than" in conduct.why
    assert conduct.state is State.LEFT_OUT


def test_the_record_of_a_call_is_read_from_the_other_end() -> None:
    here = CallRecord.create()
    there = CallRecord.open(here.path)
    try:
        caller = Caller(Journal(), QUICK, record=there)
        seen = []
        assert here.read() is None
        inner = bound(caller, lambda: seen.append(here.read()), "after_job")
        outer = bound(caller, lambda: (seen.append(here.read()), caller.call(inner, {}), seen.append(here.read())))
        caller.call(outer, {})
        assert [call.hook for call in seen] == ["before_job", "after_job", "before_job"]
        assert all(call.extension == "mine" and call.place.startswith(HERE.name) for call in seen)
        assert not seen[0].is_overdue and here.read() is None
    finally:
        here.drop()
    assert not here.path.exists()


def test_a_name_too_long_for_the_record_is_cut() -> None:
    here = CallRecord.create()
    here.begin(CallRecord.mark("n" * 5000, "before_job", "x.py", 1.0), time.perf_counter() - 5)
    here.drop()
    call = here.read()
    assert call is not None and call.is_overdue and call.extension == "n" * 80
