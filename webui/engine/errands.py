"""Control pictures that the page asks the worker for: computed between two jobs, handed over, and never kept.

A thread of the web server asks and waits; the engine's own thread, which alone hands orders to the executor, runs what
waits before it takes the next job.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from webui.engine.executor import Executor, Order, Report
from webui.errors import DEFECT, ExtensionCrashError, RequestError, WebUIError, WorkerError

log = logging.getLogger(__name__)

KIND = "control picture"
"""The kind of these orders, and of the report that carries their PNG."""
WAIT_S = 120.0
"""So long a preview waits for the pictures that are being made."""
MAX_WAITING = 16
BUSY = "The worker is making pictures; look at the preview again when they are done."


@dataclass(frozen=True, eq=False)
class Errand:
    """What is asked for, and the PNG that comes of it."""

    order: Order
    answer: Future[bytes] = field(default_factory=Future)


@dataclass
class Errands:
    """``wake`` wakes the thread that calls :meth:`run`; ``hear`` is told every report, ``lost`` of a worker that was
    lost to an extension.
    """

    executor: Executor
    wake: Callable[[], None]
    hear: Callable[[Report], None]
    lost: Callable[[ExtensionCrashError], None]
    wait_s: float = WAIT_S
    _waiting: deque[Errand] = field(default_factory=deque)
    _lock: Lock = field(default_factory=Lock)
    _closed: bool = False

    def ask(self, request: Mapping[str, Any], picture: str = "") -> bytes:
        """The PNG that the worker makes.  ``picture`` is a stored picture of the order.

        Raises RequestError when it refuses or has no time, WorkerError when it is lost.
        """
        errand = Errand(Order(job=f"{KIND} {uuid.uuid4().hex}", kind=KIND, request=request, picture=picture))
        with self._lock:
            if self._closed:
                raise WorkerError("The program is being closed.")
            if len(self._waiting) >= MAX_WAITING:
                raise RequestError(BUSY)
            self._waiting.append(errand)
        self.wake()
        try:
            return errand.answer.result(self.wait_s)
        except TimeoutError:
            self._give_up(errand)
            raise RequestError(BUSY) from None
        except CancelledError:
            raise WorkerError("The program is being closed.") from None

    def run(self) -> None:
        """Have everything computed that waits."""
        while (errand := self._next()) is not None:
            if errand.answer.set_running_or_notify_cancel():
                self._run(errand)

    def close(self) -> None:
        """Nothing that waits is computed any more."""
        with self._lock:
            self._closed = True
            for errand in self._waiting:
                errand.answer.cancel()
            self._waiting.clear()

    def _give_up(self, errand: Errand) -> None:
        """Nobody waits for it any more."""
        errand.answer.cancel()
        with self._lock, suppress(ValueError):  # it is under way
            self._waiting.remove(errand)

    def _next(self) -> Errand | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _run(self, errand: Errand) -> None:
        told: dict[str, Report] = {}

        def hear(report: Report) -> None:
            told[report.kind] = report
            self.hear(report)

        try:
            self.executor.run(errand.order, hear)
            if failed := told.get("failed"):
                raise _refusal(failed)
            errand.answer.set_result(told[KIND].blob)
        except ExtensionCrashError as error:
            self.lost(error)
            errand.answer.set_exception(error)
        except Exception as error:
            if not isinstance(error, WebUIError):
                log.exception("%s", errand.order.job)
            errand.answer.set_exception(error if isinstance(error, WebUIError) else WorkerError(DEFECT))


def _refusal(failed: Report) -> WebUIError:
    sentence = str(failed.data["error"])
    return RequestError(sentence) if int(failed.data["status"]) < 500 else WorkerError(sentence)
