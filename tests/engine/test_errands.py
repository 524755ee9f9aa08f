"""Control pictures asked of the worker: between jobs, with an answer or a sentence, never a job of their own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Thread

import pytest

from webui.engine.errands import BUSY, KIND, MAX_WAITING, Errands
from webui.engine.executor import Order, Report, Tell
from webui.errors import DEFECT, ExtensionCrashError, RequestError, WebUIError, WorkerError


@dataclass
class Place:
    """A stand-in for the worker, which does what it is told with each order, and what was heard of it."""

    does: Callable[[Order, Tell], None]
    heard: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    woken: Event = field(default_factory=Event)

    def run(self, order: Order, tell: Tell) -> None:
        self.orders.append(order)
        self.does(order, tell)

    def errands(self, wait_s: float = 20.0) -> Errands:
        hear = lambda report: self.heard.append(report.kind)  # noqa: E731
        gone = lambda error: self.lost.append(error.extension)  # noqa: E731
        return Errands(self, self.woken.set, hear, gone, wait_s)  # type: ignore[arg-type]


def asked(errands: Errands, place: Place) -> bytes | WebUIError:
    """What one who asks gets, while another thread runs what waits."""

    def work() -> None:
        place.woken.wait(20)
        errands.run()

    thread = Thread(target=work)
    thread.start()
    try:
        return errands.ask({"preprocessor": "x"}, "digest")
    except WebUIError as error:
        return error
    finally:
        thread.join(20)


def test_the_answer_is_the_blob() -> None:
    def does(order: Order, tell: Tell) -> None:
        tell(Report("problem", {"sentence": "told"}))
        tell(Report(KIND, blob=b"a picture"))
        tell(Report("done"))

    place = Place(does)
    assert asked(place.errands(), place) == b"a picture"
    (order,) = place.orders
    assert order.kind == KIND and order.picture == "digest" and order.request == {"preprocessor": "x"}
    assert place.heard == ["problem", KIND, "done"]


@pytest.mark.parametrize(("status", "kind"), [(422, RequestError), (404, RequestError), (500, WorkerError)])
def test_a_refusal_is_its_sentence(status: int, kind: type[WebUIError]) -> None:
    place = Place(lambda order, tell: tell(Report("failed", {"error": "No such file.", "status": status})))
    found = asked(place.errands(), place)
    assert type(found) is kind and str(found) == "No such file."


def test_a_worker_that_is_lost_is_told_of() -> None:
    def does(order: Order, tell: Tell) -> None:
        raise ExtensionCrashError("The extension bad ended the worker.", "bad")

    place = Place(does)
    assert "bad ended" in str(asked(place.errands(), place))
    assert place.lost == ["bad"]


def test_a_defect_is_one_sentence_and_the_next_errand_works() -> None:
    def does(order: Order, tell: Tell) -> None:
        if len(place.orders) == 1:
            raise KeyError("x")
        tell(Report(KIND, blob=b"fine"))

    place = Place(does)
    errands = place.errands()
    assert str(asked(errands, place)) == DEFECT
    place.woken.clear()
    assert asked(errands, place) == b"fine"


def test_who_waits_too_long_is_told_so_and_nothing_is_computed_for_nobody() -> None:
    place = Place(lambda order, tell: tell(Report(KIND, blob=b"late")))
    errands = place.errands(wait_s=0.01)
    with pytest.raises(RequestError, match="making pictures"):
        errands.ask({})
    errands.run()
    assert place.orders == [] and not errands._waiting


def test_too_many_are_refused() -> None:
    place = Place(lambda order, tell: None)
    errands = place.errands()

    def ask() -> None:
        with suppress(WorkerError):
            errands.ask({})

    asking = [Thread(target=ask) for _ in range(MAX_WAITING)]
    for thread in asking:
        thread.start()
    while len(errands._waiting) < MAX_WAITING:
        place.woken.wait(20)
    with pytest.raises(RequestError) as caught:
        errands.ask({})
    assert str(caught.value) == BUSY
    errands.close()
    for thread in asking:
        thread.join(20)


def test_closing_frees_who_waits() -> None:
    place = Place(lambda order, tell: None)
    errands = place.errands()
    closing = Thread(target=lambda: (place.woken.wait(20), errands.close()))
    closing.start()
    with pytest.raises(WorkerError, match="being closed"):
        errands.ask({})
    closing.join(20)
    with pytest.raises(WorkerError, match="being closed"):
        errands.ask({})
