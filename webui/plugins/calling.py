"""Calls the hooks of extensions: timed, within a budget, and with every way to fail caught and attributed.

Whatever a hook raises, and however long it takes, its caller gets :data:`FAILED` and goes on.  In the server
(``abandons``) a call runs on a thread of its own, which is left behind when it does not end; elsewhere the calling
thread is told to end the call (``watchdog``), and what the call was is written down for whoever looks after the process
(``call_record``).
"""

from __future__ import annotations

import contextvars
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from webui.plugins.call_record import CallRecord
from webui.plugins.conduct import Conduct, HookTime, Journal, Place, Problem, place_of, printable, said
from webui.plugins.watchdog import NEVER, HookTimeout, Running, Watchdog, settle

TRACE_VARIABLE = "WEBUI_TRACE_HOOKS"
TRACED_CHARACTERS = 200
"""How much of an argument or result is printed."""
FAILED: Any = object()
"""What a call gives that raised, hung, or was of an extension that is switched off."""
NOWHERE = Place()
IMPORT = "import"
"""Stands for a hook where an extension is loaded."""


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """What extensions may take: seconds (0: no limit), and failures in a session.

    ``start_s`` is for loading and for each registration, ``call_s`` for every other call.  After ``grace_s`` a call
    that was told to end and did not is told again, and given up where it can be.
    """

    start_s: float = 20.0
    call_s: float = 30.0
    grace_s: float = 5.0
    failures: int = 3

    def of(self, hook: str) -> float:
        """How long one call of a hook may take."""
        seconds = self.start_s if hook == IMPORT or hook.startswith("register_") else self.call_s
        return seconds if seconds > 0 else NEVER


@dataclass(slots=True)
class Bound:
    """One implementation of a hook, ready to be called.  ``conduct`` is None for a built-in part."""

    hook: str
    owner: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]
    conduct: Conduct | None = None
    budget_s: float = NEVER
    time: HookTime = field(default_factory=HookTime)
    mark: bytes = b""


@dataclass
class Caller:
    """Calls hooks.  ``journal`` learns what goes wrong."""

    journal: Journal
    budgets: Budgets = field(default_factory=Budgets)
    abandons: bool = False
    record: CallRecord | None = None
    trace: bool = field(default_factory=lambda: os.environ.get(TRACE_VARIABLE) == "1")

    def __post_init__(self) -> None:
        self.watchdog = Watchdog(Caller.guarded.__code__, self.budgets.grace_s)

    def bind(
        self, hook: str, owner: str, function: Callable[..., Any], arguments: tuple[str, ...], conduct: Conduct | None
    ) -> Bound:
        """An implementation with its budget and its clock; a hook's is made once and kept."""
        if conduct is None:
            return Bound(hook, owner, function, arguments)
        time = conduct.times.setdefault(hook, HookTime())
        budget = self.budgets.of(hook)
        code = getattr(function, "__code__", None)
        place = f"{Path(code.co_filename).name}, line {code.co_firstlineno}" if code else ""
        mark = CallRecord.mark(conduct.name, hook, place, budget + 3 * self.budgets.grace_s)
        return Bound(hook, owner, function, arguments, conduct, budget, time, mark)

    def call(self, bound: Bound, arguments: Mapping[str, Any]) -> Any:
        """The hook's result, or FAILED."""
        given = [arguments[name] for name in bound.arguments]
        if bound.conduct is None:
            result = self._trusted(bound, given)
        elif bound.conduct.is_off:
            return FAILED
        elif self.abandons:
            result = self._abandonable(bound, given)
        else:
            result = self.guarded(bound, given)
        if self.trace:
            _print_call(bound, given, result)
        return result

    def run(self, conduct: Conduct, hook: str, function: Callable[[], Any]) -> Any:
        """What an extension's ``function`` gives, or FAILED: for its code that is no hook (its import, its tab)."""
        return self.call(self.bind(hook, f"extension {conduct.name}", function, (), conduct), {})

    def _trusted(self, bound: Bound, given: list[Any]) -> Any:
        """A built-in part's result; one that raises is reported like an extension's."""
        try:
            return bound.function(*given)
        except Exception as error:
            self._failed(bound, error)
            return FAILED

    def guarded(self, bound: Bound, given: list[Any]) -> Any:
        """The result of an extension's function, which is told to end when its time is over.

        The watchdog's signal handler looks for this function, and its ``running``, in the stack.
        """
        watchdog, thread, record = self.watchdog, threading.get_ident(), self.record
        started = time.perf_counter()
        outer = watchdog.running.get(thread)
        running = Running(bound.hook, thread, started + bound.budget_s, outer)
        depth = record.begin(bound.mark, started) if record is not None else 0
        watchdog.running[thread] = running
        if not watchdog.is_awake:
            watchdog.wake()
        try:
            try:
                result = bound.function(*given)
            finally:
                running.is_over = True
        except BaseException as error:
            running.is_over = True  # also when it was told to end just behind the function
            self._end(running, started, bound, depth)
            if self._is_for_others(error, running):
                raise
            self._failed(bound, error)
            return FAILED
        self._end(running, started, bound, depth)
        if running.fired:  # it kept what it was told to end by
            self._hung(bound, NOWHERE)
            return FAILED
        return result

    def _end(self, running: Running, started: float, bound: Bound, depth: int) -> None:
        self.watchdog.running[running.thread] = running.outer
        settle(running)
        bound.time.add(time.perf_counter() - started)
        if self.record is not None:
            self.record.end(depth)

    def _is_for_others(self, error: BaseException, running: Running) -> bool:
        """Whether an exception came from outside: Ctrl+C of a person, or the end of the call around this one."""
        if isinstance(error, HookTimeout):
            return not running.fired
        return (
            isinstance(error, KeyboardInterrupt)
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        )

    def _abandonable(self, bound: Bound, given: list[Any]) -> Any:
        """As :meth:`guarded`, on a thread of its own that is left behind if it does not end."""
        results: list[Any] = []
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=lambda: results.append(context.run(self.guarded, bound, given)),
            name=f"{bound.owner}: {bound.hook}",
            daemon=True,
        )
        thread.start()
        thread.join(None if bound.budget_s == NEVER else bound.budget_s + self.budgets.grace_s)
        if results:
            return results[0]
        frame = sys._current_frames().get(thread.ident or 0)
        place = Place()
        while frame is not None and bound.conduct is not None:
            if bound.conduct.owns(frame.f_code.co_filename):
                place = Place(Path(frame.f_code.co_filename).name, frame.f_lineno)
                break
            frame = frame.f_back
        self._hung(bound, place)
        return FAILED

    def _failed(self, bound: Bound, error: BaseException) -> None:
        place = place_of(error, bound.conduct)
        if isinstance(error, HookTimeout):
            self._hung(bound, place)
        elif bound.hook == IMPORT and bound.conduct is not None:
            sentence = f"The extension {bound.conduct.name} was left out: {said(error)}{place}"
            self.journal.left_out(bound.conduct, self.problem(bound, sentence, place))
        else:
            sentence = f"{bound.owner}: {bound.hook} failed: {said(error)}{place}"
            self.journal.failed(bound.conduct, self.problem(bound, sentence, place))

    def _hung(self, bound: Bound, place: Place) -> None:
        conduct = bound.conduct
        if conduct is None or conduct.is_off:
            return  # said already: by the thread that was left behind, or by the one that left it
        took = f"took more than {bound.budget_s:g} s and was ended{place}."
        if bound.hook == IMPORT:
            sentence = f"The extension {conduct.name} was left out: its import {took}"
            self.journal.left_out(conduct, self.problem(bound, sentence, place))
        else:
            told = self.problem(bound, f"{bound.owner}: {bound.hook} {took}", place)
            self.journal.failed(conduct, told, at_once=True)

    def problem(self, bound: Bound, sentence: str, place: Place = NOWHERE) -> Problem:
        """A problem with an implementation; without a place, it is that of the function."""
        code = getattr(bound.function, "__code__", None)
        if not place.file and code is not None:
            place = Place(Path(code.co_filename).name, code.co_firstlineno)
        name = bound.conduct.name if bound.conduct is not None else bound.owner
        return Problem(sentence=sentence, extension=name, hook=bound.hook, file=place.file, line=place.line)

    def refuse(self, bound: Bound, what: str) -> None:
        """Note that what a hook did cannot be used."""
        self.journal.failed(bound.conduct, self.problem(bound, f"{bound.owner}: {what}"))


def _print_call(bound: Bound, given: list[Any], result: Any) -> None:
    shown = ", ".join(f"{name}={_short(value)}" for name, value in zip(bound.arguments, given, strict=True))
    outcome = "raised" if result is FAILED else _short(result)
    print(f"{bound.owner}: {bound.hook}({shown}) -> {outcome}", file=sys.stderr, flush=True)


def _short(value: Any) -> str:
    try:
        text = " ".join(repr(value).split())
    except Exception as error:
        text = f"a {printable(type(value).__name__)} that cannot be shown ({said(error)})"
    return text if len(text) <= TRACED_CHARACTERS else f"{text[: TRACED_CHARACTERS - 1]}…"
