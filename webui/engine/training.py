"""The queue of trainings: one after the other, in a process of their own, each a job like any other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from webui.checkpoints.library import Library
from webui.engine.executor import Order, Report, Trainer
from webui.engine.jobs import TRAINING, Job, JobState, Progress
from webui.engine.ledger import MARGIN, TOLD_AGAIN, Ledger
from webui.engine.store import GIVEN_UP_TRAINING
from webui.errors import DEFECT, OutputError, RequestError, WebUIError, WorkerError, unknown_name
from webui.training.kinds import TrainingKind, read_options
from webui.training.request import TrainingRequest

log = logging.getLogger(__name__)

DISK_WAIT_S = 5.0
STOPPING = {JobState.PAUSED: "pausing", JobState.QUEUED: "stopping", JobState.INTERRUPTED: "stopping"}


@dataclass
class TrainingQueue:
    """One thread that hands trainings to the trainer and records what it hears.

    ``refresh`` looks at the models folder again, ``problem`` takes a sentence about an extension.  ``_wishes`` says, by
    job, where one that was asked to stop goes.
    """

    ledger: Ledger
    trainer: Trainer
    refresh: Callable[[], None]
    problem: Callable[[str], None]
    _wishes: dict[str, JobState] = field(default_factory=dict)
    _changed: threading.Event = field(default_factory=threading.Event)
    _closed: bool = False
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to work."""
        self._thread = threading.Thread(target=self._work, name="trainings", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look at the queue: a training was added."""
        self._changed.set()

    def close(self) -> None:
        """Stop; a training under way writes a checkpoint and goes back into the queue for the next start."""
        self._closed = True
        self._changed.set()
        self.trainer.close()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def pause(self, job_id: str) -> None:
        """Let a training wait until :meth:`go_on`.  Raises NotFoundError, and RequestError when it cannot."""
        with self.ledger.lock:
            job = self._job(job_id)
            if job.state.is_over:
                raise RequestError(f"The training is over ({job.state.value}); there is nothing to pause.")
            if job.state is JobState.QUEUED:
                self.ledger.pause(job)
            elif job.state is JobState.RUNNING:
                self._stop(job, JobState.PAUSED)

    def interrupt(self, job_id: str) -> None:
        """End a training, with a checkpoint when it is under way.  Raises NotFoundError."""
        with self.ledger.lock:
            job = self._job(job_id)
            if job.state is JobState.RUNNING:
                self._stop(job, JobState.INTERRUPTED)
            elif not job.state.is_over:
                self.ledger.finish(job, JobState.INTERRUPTED, {})

    def go_on(self, job_id: str) -> None:
        """Queue a training that stopped again.  Raises NotFoundError, and RequestError for one that is done."""
        with self.ledger.lock:
            job = self._job(job_id)
            if job.state is JobState.DONE:
                raise RequestError("The training is done; begin a new one to teach further.")
            if job_id in self._wishes:
                self._wishes[job_id] = JobState.QUEUED  # it is being stopped: right afterwards it goes on
            elif job.state not in (JobState.QUEUED, JobState.RUNNING):
                self._queue_again(job)

    def _job(self, job_id: str) -> Job:
        job = self.ledger.job(job_id)
        if job.kind != TRAINING:
            raise RequestError(f"Job {job_id} is no training; only trainings can be paused and gone on with.")
        return job

    def _stop(self, job: Job, then: JobState) -> None:
        self._wishes[job.id] = then
        self.trainer.interrupt(job.id)

    def _queue_again(self, job: Job) -> None:
        seen = 0 if self.ledger.events.knows(job.id) else TOLD_AGAIN + int((job.finished or 0.0) * 1000) + 5 * MARGIN
        self.ledger.events.reopen(job.id, seen)
        self.ledger.store.count_attempts(job, 0)
        self.ledger.queue_again(job)
        self._changed.set()

    def _work(self) -> None:
        while not self._closed:
            self._changed.clear()
            try:
                self.ledger.save_late()
                job = self.ledger.store.next_queued(True)
                if job is not None:
                    self._teach(job)
                else:
                    self.trainer.rest()
                    self._changed.wait(timeout=60)
            except OutputError as error:
                log.error("%s", error)  # the job list cannot be used: wait for the disk, nothing is lost
                self._changed.wait(timeout=DISK_WAIT_S)

    def _teach(self, job: Job) -> None:
        started = self.ledger.start(job)
        if started is None:
            return
        order = Order(job=job.id, kind=TRAINING, request=started.request)
        try:
            self.trainer.run(order, partial(self._hear, job.id))
        except WorkerError as error:
            self._lost(self.ledger.live(job.id), error)
        except Exception as error:
            if not isinstance(error, WebUIError):
                log.exception("training %s", job.id)
            sentence = str(error) if isinstance(error, WebUIError) else DEFECT
            self._finish(self.ledger.live(job.id), JobState.FAILED, {"error": sentence})

    def _hear(self, job_id: str, report: Report) -> None:
        job, data = self.ledger.live(job_id), dict(report.data)
        if report.kind == "progress":
            self._progress(job, Progress(**data))
        elif report.kind in ("loss", "sample"):
            self.ledger.events.tell(job_id, report.kind, data)
        elif report.kind == "saved":
            self.ledger.store.count_attempts(job, 1)
            self.ledger.events.tell(job_id, "saved", data)
        elif report.kind == "exported":
            self._exported(job, str(data["path"]))
        elif report.kind == "problem":
            self.problem(str(data["sentence"]))
        elif report.kind == "done":
            self._finish(job, JobState.DONE, {})
        elif report.kind == "failed":
            self._finish(job, JobState.FAILED, {"error": str(data["error"])})
        elif report.kind == "interrupted":
            self._stopped(job)

    def _progress(self, job: Job, progress: Progress) -> None:
        wish = self._wishes.get(job.id)
        if not progress.step:  # no step was made since it was taken up again
            progress = replace(progress, step=job.progress.step)
        if wish is not None:
            progress = replace(progress, phase=STOPPING[wish])
        self.ledger.keep(replace(job, progress=progress))
        self.ledger.events.tell(job.id, "step", asdict(progress))

    def _exported(self, job: Job, path: str) -> None:
        job = replace(job, files=(*(other for other in job.files if other != path), path))
        self.ledger.keep(job)
        self.ledger.store.save(job)
        self.refresh()
        self.ledger.events.tell(job.id, "exported", {"path": path})

    def _finish(self, job: Job, state: JobState, data: Mapping[str, Any]) -> None:
        with self.ledger.lock:
            self._wishes.pop(job.id, None)
            if not self.ledger.finish(job, state, data):
                self._changed.set()

    def _stopped(self, job: Job) -> None:
        """The training ended with a checkpoint, as it was wished; by the server's end when nobody wished it."""
        with self.ledger.lock:
            wish = self._wishes.pop(job.id, JobState.QUEUED if self._closed else JobState.INTERRUPTED)
            if wish is JobState.PAUSED:
                self.ledger.pause(job)
            elif wish is JobState.QUEUED:
                self.ledger.store.count_attempts(job, 0)
                self.ledger.queue_again(job)
            else:
                self._finish(job, JobState.INTERRUPTED, {})

    def _lost(self, job: Job, error: WorkerError) -> None:
        """The process ended: take the training up from its last checkpoint, if that may help."""
        if self._closed:
            self.ledger.store.release(job)
        elif job.id in self._wishes:
            self._stopped(job)
        elif self.ledger.store.may_begin_again(job):
            log.warning("training %s: %s It is taken up again.", job.id, error)
            self.ledger.queue_again(job)
        else:
            self._finish(job, JobState.FAILED, {"error": f"{error} {GIVEN_UP_TRAINING}"})


def read_request(plain: Any, kinds: Mapping[str, TrainingKind], library: Library) -> TrainingRequest:
    """What plain values ask for, with nothing left open: kind's defaults, options in full, absolute folders.

    Raises RequestError when they name something that is not here, or a file to be made that is.
    """
    request = TrainingRequest.from_dict(_with_defaults(plain, kinds))
    kind = kinds[request.kind]
    _require_new(kind, request.name, library)
    data = request.data
    folders: dict[str, Any] = {
        name: _folder(what, getattr(data, name))
        for name, what in (("folder", "training pictures"), ("class_folder", "class pictures"),
                           ("control_folder", "control pictures"))
    }  # fmt: skip
    return replace(
        request,
        data=replace(data, **folders),
        options=asdict(read_options(kind, request.options)),
        checkpoint=library.find(request.checkpoint).name,
    )


def _with_defaults(plain: Any, kinds: Mapping[str, TrainingKind]) -> dict[str, Any]:
    """The values, with what was not said as the kind recommends; parts that are no tables stay, to be refused."""
    if not isinstance(plain, Mapping):
        raise RequestError(f"A training request must be a table of names and values, not {type(plain).__name__}.")
    name = plain.get("kind")
    if not isinstance(name, str) or name not in kinds:
        raise unknown_name("kind of training", str(name or ""), kinds)
    filled = dict(plain)
    for field_name, value in kinds[name].defaults.items():
        part, _, inner = field_name.partition(".")
        if not inner:
            filled.setdefault(part, value)
        elif isinstance(filled.get(part, {}), Mapping):
            filled[part] = {inner: value, **filled.get(part, {})}
    return filled


def _require_new(kind: TrainingKind, name: str, library: Library) -> None:
    """Refuse to write over a model that is there.  (A run that goes on is not asked; it writes its own file again.)"""
    path = library.root / library.folders[kind.folder][0] / f"{name}.safetensors"
    if path.exists():
        raise RequestError(
            f'There is a {kind.label} named "{name}" already ({path}); choose another name, or take that file away.'
        )


def _folder(what: str, path: str) -> str:
    if not path:
        return path
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise RequestError(f"There is no folder {folder} with {what}; name one that is on this machine.")
    return str(folder)
