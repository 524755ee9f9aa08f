"""Where jobs are computed: the one seam between the engine and the networks.

The engine hands an :class:`Order` to an :class:`Executor` and hears :class:`Report` s.  Today there are two: a worker
process of its own (the server, so that it stays responsive and survives a killed worker) and the same code in-process
(command line and tests).  A cluster executor would be a third, without a change to any caller.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Protocol

from webui.engine.wire import Wire
from webui.errors import WorkerError
from webui.settings import Settings

log = logging.getLogger(__name__)

MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
}
"""glibc keeps freed blocks instead of giving them to the kernel at every convolution (see benchmarks/README.md)."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A job to compute.  ``done`` are picture indices that exist already (a job taken up again after a restart).

    ``kind`` is "generate" (``request``) or "reproduce" (``picture``: the SHA-256 of the stored picture).
    """

    job: str
    kind: str
    request: Mapping[str, Any] = field(default_factory=dict)
    done: tuple[int, ...] = ()
    picture: str = ""


@dataclass(frozen=True)
class Report:
    """What an executor tells about a job while it runs.

    ``kind``: "progress" (fields of jobs.Progress), "preview" (``blob``: a JPEG), "picture" (fields of jobs.Output,
    told after the file is safely on disk), "verdict" (a reproduction's), "request" (the request as plugins rewrote it),
    "problem" ({"sentence"}, of an extension); and one of the three that end a job: "done", "interrupted", "failed"
    ({"error", "status"}).
    """

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    blob: bytes = b""

    @property
    def ends(self) -> bool:
        """Whether the job is over with this report."""
        return self.kind in ("done", "interrupted", "failed")


Tell = Callable[[Report], None]


class Executor(Protocol):
    """Computes jobs, one at a time."""

    def run(self, order: Order, tell: Tell) -> None:
        """Compute a job and return when it is over.  Raises WorkerError when the place it ran in is lost."""
        ...

    def interrupt(self, job: str) -> None:
        """Stop the job between two steps; finished pictures are kept."""
        ...

    def skip(self, job: str) -> None:
        """Leave out the picture (or batch) under way and go on with the next."""
        ...

    def warm_up(self) -> None:
        """Get ready for the first job (load the default model), without waiting for it."""
        ...

    def status(self) -> str:
        """One word: "starting", "ready", "busy" or "down"."""
        ...

    def close(self) -> None:
        """Stop whatever runs and free everything."""
        ...


class WorkerProcess:
    """An Executor in a process of its own, started at once and started anew when it dies."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._reports: SimpleQueue[Report | None] = SimpleQueue()
        self._status = "starting"
        self._closed = False
        self._start()

    def run(self, order: Order, tell: Tell) -> None:
        """See Executor.  A killed worker is started again before this raises."""
        process = self._alive()
        reports: SimpleQueue[Report | None] = SimpleQueue()
        self._reports = reports
        try:
            self._wire.send({"type": "run", "order": asdict(order)})
        except OSError:
            reports.put(None)
        while True:
            report = reports.get()
            if report is None:
                raise WorkerError(self._epitaph(process))
            tell(report)
            if report.ends:
                return

    def interrupt(self, job: str) -> None:
        """See Executor."""
        self._send({"type": "interrupt", "job": job})

    def skip(self, job: str) -> None:
        """See Executor."""
        self._send({"type": "skip", "job": job})

    def warm_up(self) -> None:
        """See Executor."""
        self._send({"type": "warm up"})

    def status(self) -> str:
        """See Executor."""
        return self._status if self._process.poll() is None else "down"

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def close(self) -> None:
        """See Executor."""
        self._closed = True
        process = self._process
        process.kill()
        process.wait()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._wire.send(message)
        except OSError:
            log.debug("the worker is gone; %s was not sent", message["type"])

    def _alive(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._process.poll() is not None:
                self._start()
            return self._process

    def _start(self) -> None:
        self._status = "starting"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "webui.engine.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**MALLOC, **os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self._process.stdin and self._process.stdout
        self._wire = Wire(self._process.stdin)  # type: ignore[arg-type]
        self._send({"type": "settings", "settings": self._settings.to_dict()})
        incoming = Wire(self._process.stdout)  # type: ignore[arg-type]
        Thread(target=self._listen, args=(self._process, incoming), name="worker reports", daemon=True).start()

    def _listen(self, process: subprocess.Popen[bytes], incoming: Wire) -> None:
        while (received := incoming.receive()) is not None:
            message, blob = received
            if message["type"] == "status":
                self._status = message["status"]
            else:
                self._reports.put(Report(message["kind"], message["data"], blob))
        process.wait()
        self._reports.put(None)
        if self._closed:
            return
        log.warning("%s", self._epitaph(process))
        self._alive()
        self.warm_up()

    def _epitaph(self, process: subprocess.Popen[bytes]) -> str:
        code = process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        advice = " (often: not enough memory; try a smaller size or close other programs)" if code in (-9, 137) else ""
        return f"The process that computes pictures {how}{advice}. It was started again; finished pictures are kept."
