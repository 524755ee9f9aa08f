"""Where jobs are computed: the one seam between the engine and the networks.

The engine hands an :class:`Order` to an :class:`Executor` and hears :class:`Report` s.  Today there are two: a worker
process of its own (the server, so that it stays responsive and survives a killed worker) and the same code in-process
(tests, and programs that use the engine as a library; the command line calls the runner itself).  A cluster executor
would be a third, without a change to any caller.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, Protocol

from webui.engine.culprits import Culprits, watch
from webui.engine.processes import exit_words, python_path
from webui.engine.wire import Wire
from webui.errors import ExtensionCrashError, WorkerError
from webui.plugins.call_record import CallRecord
from webui.settings import Settings

log = logging.getLogger(__name__)

MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
}
"""glibc keeps freed blocks instead of giving them to the kernel at every convolution (see benchmarks/README.md)."""

OVER_S = 5.0
"""So long a new worker waits for what the one before it left behind to be read."""
STOPPING_S = 20.0
"""So long the server waits for a training to write its checkpoint when it stops."""
ENDING_S = 2.0
"""So long a worker whose pipe was closed may take to end by itself."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A job to compute.  ``done`` are picture indices that exist already (a job taken up again after a restart), and
    ``paths`` their files, relative to the outputs folder.

    ``kind`` is "generate", "extras" or "train" (``request``), "reproduce" (``picture``: the SHA-256 of the stored
    picture) or "control picture" (``request``: a module or preprocessor and its options, and then ``picture``).
    """

    job: str
    kind: str
    request: Mapping[str, Any] = field(default_factory=dict)
    done: tuple[int, ...] = ()
    paths: tuple[str, ...] = ()
    picture: str = ""


@dataclass(frozen=True)
class Report:
    """What an executor tells about a job while it runs.

    ``kind``: "progress" (fields of jobs.Progress), "preview" (``blob``: a JPEG), "picture" (fields of jobs.Output,
    told after the file is safely on disk), "verdict" (a reproduction's), "request" (the request as plugins rewrote it),
    "problem" ({"sentence"}, of an extension), "extensions" ({"reports"}, how they behave in this process); of a
    training also "loss" ({"points"}), "sample" and "saved" ({"step"}) and "exported" ({"path"}); "control picture"
    (``blob``: a PNG), the answer to such an order; and one of the three that end a job: "done", "interrupted",
    "failed" ({"error", "status"}).
    """

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    blob: bytes = b""

    @property
    def ends(self) -> bool:
        """Whether the job is over with this report."""
        return self.kind in ("done", "interrupted", "failed")


Tell = Callable[[Report], None]


@dataclass
class Control:
    """The wishes that reach a running job.  Set from another thread, seen between two moments.

    ``held`` belongs to the process: a training waits as long as it is set.
    """

    interrupted: Event = field(default_factory=Event)
    skipped: Event = field(default_factory=Event)
    held: Event = field(default_factory=Event)


class Executor(Protocol):
    """Computes jobs, one at a time."""

    def run(self, order: Order, tell: Tell) -> None:
        """Compute a job and return when it is over.

        Raises WorkerError when the place it ran in is lost; as an ExtensionCrashError when that was within a call of an
        extension, which is not called any more.
        """
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


class Trainer(Protocol):
    """Computes trainings, one at a time, beside the pictures."""

    def run(self, order: Order, tell: Tell) -> None:
        """Teach and return when it is over.  Raises WorkerError when the place it ran in is lost."""
        ...

    def interrupt(self, job: str) -> None:
        """Stop the training between two steps, with a checkpoint."""
        ...

    def hold(self, on: bool) -> None:
        """Let whatever is taught wait, now and until told otherwise."""
        ...

    def rest(self) -> None:
        """Free everything: nothing is left to teach for now."""
        ...

    def close(self) -> None:
        """Stop whatever runs, with a checkpoint, and free everything."""
        ...


@dataclass(frozen=True)
class Role:
    """What a worker process does: its word on the command line, and for people what is lost when it ends."""

    name: str
    does: str
    after: str


GENERATING = Role("generate", "computes pictures", "It is started again; finished pictures are kept.")
TEACHING = Role("teach", "teaches", "What was learnt up to the last checkpoint is kept.")


@dataclass
class _Life:
    """One worker process from start to end: its pipe, what it reported, and how far it came.

    ``readies`` counts how often it said "ready": once when it stands, again after each order.  ``fatal`` is the
    sentence of a worker that could not start.  ``record`` holds the call of an extension under way, ``blame``
    is the sentence about the one within which the process ended, known when all is ``over``.
    """

    process: subprocess.Popen[bytes]
    wire: Wire
    reports: SimpleQueue[tuple[str, Report] | None] = field(default_factory=SimpleQueue)
    status: str = "starting"
    readies: int = 0
    fatal: str = ""
    record: CallRecord = field(default_factory=CallRecord.create)
    blame: str = ""
    culprit: str = ""
    over: Event = field(default_factory=Event)


class WorkerProcess:
    """An Executor in a process of its own, started at once and started anew when it dies (if not for teaching).

    One that dies before it is ready is not started again until there is a job for it, and one that dies over its first
    order starts without loading a model, so that a model too large for the memory is not loaded for ever.  One that
    dies within a call of an extension is started without that extension.
    """

    def __init__(
        self, settings: Settings, role: Role = GENERATING, *, held: bool = False, culprits: Culprits | None = None
    ) -> None:
        self._settings = settings
        self._culprits = culprits or Culprits()
        self._role = role
        self._held = held
        self._lock = Lock()
        self._closed = False
        self._unwanted = ""
        self._life = self._start()

    def run(self, order: Order, tell: Tell) -> None:
        """See Executor.  When ``tell`` raises, the job is stopped and the error goes on."""
        life = self._alive()
        try:
            unwanted = self._unwanted == order.job  # the wish to stop came before the order
            life.wire.send({"type": "run", "order": asdict(order), "unwanted": unwanted})
            if self._unwanted == order.job:  # or while it was sent
                self.interrupt(order.job)
        except OSError:
            log.debug("the worker is gone before job %s began", order.job)
        try:
            while True:
                reported = life.reports.get()
                if reported is None:
                    raise self._loss(life)
                job, report = reported
                if report.kind == "extensions":
                    self._culprits.hear(report.data["reports"])
                if job != order.job:
                    continue  # what a job that was given up still had to say
                tell(report)
                if report.ends:
                    return
        except BaseException:
            self.interrupt(order.job)
            raise
        finally:
            self._unwanted = ""  # the same job may be run again

    def interrupt(self, job: str) -> None:
        """See Executor."""
        self._unwanted = job
        self._send({"type": "interrupt", "job": job})

    def skip(self, job: str) -> None:
        """See Executor."""
        self._send({"type": "skip", "job": job})

    def hold(self, on: bool) -> None:
        """See Trainer."""
        with self._lock:
            self._held = on
            self._send({"type": "hold", "on": on})

    def warm_up(self) -> None:
        """See Executor."""
        self._send({"type": "warm up"})

    def status(self) -> str:
        """See Executor."""
        return self._life.status if self._life.process.poll() is None else "down"

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._life.process.pid

    def close(self) -> None:
        """See Executor."""
        with self._lock:
            self._closed = True
            life = self._life
        # The worker ends by itself when its pipe is closed, and may tell its plugins.  Closing waits for a message that
        # is being sent, which a worker that reads nothing would hold up for ever; the kill frees it.
        Thread(target=life.wire.close, name="worker pipe", daemon=True).start()
        try:
            life.process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            life.process.kill()
            life.process.wait()
        life.record.drop()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._life.wire.send(message)
        except OSError:
            log.debug("the worker is gone; %s was not sent", message["type"])

    def _alive(self) -> _Life:
        with self._lock:
            if self._closed:
                raise WorkerError("The program is being closed.")
            if self._life.process.poll() is not None:
                self._life.over.wait(OVER_S)  # until it is known what it died of
                self._life = self._start()
            return self._life

    def _start(self) -> _Life:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "webui.engine.worker", self._role.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl+C in the terminal is for the server, which then ends the worker
            env={**MALLOC, **os.environ, **python_path(), "PYTHONUNBUFFERED": "1"},
        )
        assert process.stdin and process.stdout
        life = _Life(process, Wire(process.stdin))  # type: ignore[arg-type]
        try:
            settings = self._culprits.without(self._settings).to_dict()
            life.wire.send({"type": "settings", "settings": settings, "record": str(life.record.path)})
            if self._held:
                life.wire.send({"type": "hold", "on": True})
        except OSError:
            log.debug("the worker is gone before it began")
        incoming = Wire(process.stdout)  # type: ignore[arg-type]
        Thread(target=self._listen, args=(life, incoming), name="worker reports", daemon=True).start()
        Thread(target=watch, args=(life.process, life.record), name="worker watch", daemon=True).start()
        return life

    def _listen(self, life: _Life, incoming: Wire) -> None:
        try:
            while (received := incoming.receive()) is not None:
                _take(life, *received)
        except (OSError, ValueError, LookupError, TypeError):
            log.exception("a message of the worker cannot be read; it is ended")
            life.process.kill()
        finally:
            life.process.wait()
            if not self._closed:
                life.blame = self._blame(life)
            life.record.drop()
            life.over.set()
            life.reports.put(None)
            life.wire.close()
            incoming.close()
        if self._closed:
            return
        log.warning("%s", life.blame or self._epitaph(life))
        if (life.readies or life.blame) and self._role is GENERATING:
            self._revive(warm=life.readies > 1)

    def _revive(self, *, warm: bool) -> None:
        try:
            self._alive()
        except (WorkerError, OSError) as error:
            log.warning("the worker was not started again: %s", error)
            return
        if warm:
            self.warm_up()

    def _epitaph(self, life: _Life) -> str:
        code = life.process.wait()
        if life.fatal:
            return life.fatal
        advice = " (often: not enough memory; try a smaller size or close other programs)" if code in (-9, 137) else ""
        return f"The process that {self._role.does} {exit_words(code)}{advice}. {self._role.after}"

    def _loss(self, life: _Life) -> WorkerError:
        return ExtensionCrashError(life.blame, life.culprit) if life.blame else WorkerError(self._epitaph(life))

    def _blame(self, life: _Life) -> str:
        """The sentence about the extension whose call was under way when the process ended; empty when none was."""
        call = life.record.read()
        how = "did not come back" if call is not None and call.is_overdue else exit_words(life.process.wait())
        life.culprit = call.extension if call is not None else ""
        return self._culprits.lost(call, how, self._role.does)


class TrainerProcess:
    """A Trainer in a process of its own, there only while there is something to teach."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._process: WorkerProcess | None = None
        self._culprits = Culprits()
        self._job = ""
        self._idle = Event()
        self._idle.set()
        self._unwanted = ""
        self._held = self._closed = False

    def run(self, order: Order, tell: Tell) -> None:
        """See Trainer."""
        with self._lock:
            if self._closed:
                raise WorkerError("The program is being closed.")
            if self._process is None:
                self._process = WorkerProcess(self._settings, TEACHING, held=self._held, culprits=self._culprits)
            process = self._process
            self._job = order.job
            self._idle.clear()
            if self._unwanted == order.job:  # the wish to stop came before the order
                process.interrupt(order.job)
        try:
            process.run(order, tell)
        finally:
            self._job = self._unwanted = ""
            self._idle.set()

    def interrupt(self, job: str) -> None:
        """See Trainer."""
        with self._lock:
            self._unwanted = job
            if self._process is not None:
                self._process.interrupt(job)

    def hold(self, on: bool) -> None:
        """See Trainer."""
        with self._lock:
            if self._held == on:
                return
            self._held = on
            if self._process is not None:
                self._process.hold(on)

    def rest(self) -> None:
        """See Trainer."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.close()

    def close(self) -> None:
        """See Trainer; a step that takes longer than ``STOPPING_S`` is lost with those since the last checkpoint."""
        with self._lock:
            self._closed = True
        if self._job:
            self.interrupt(self._job)
            self._idle.wait(STOPPING_S)
        self.rest()

    @property
    def pid(self) -> int | None:
        """The process id, None when there is nothing to teach."""
        with self._lock:
            return self._process.pid if self._process is not None else None


def _take(life: _Life, message: Mapping[str, Any], blob: bytes) -> None:
    if message["type"] == "status":
        life.status = message["status"]
        life.readies += life.status == "ready"
    elif message["type"] == "fatal":
        life.fatal = message["error"]
    else:
        life.reports.put((message["job"], Report(message["kind"], message["data"], blob)))
