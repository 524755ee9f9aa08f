"""The jobs as they stand: in memory those of this start, in the store all of them; what happens is told as events.

The queue of pictures and the queue of trainings write here, the engine reads.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from threading import RLock
from typing import Any

from webui.engine.events import Events
from webui.engine.jobs import TRAINING, Event, Job, JobState, Progress
from webui.engine.store import JobStore
from webui.errors import OutputError

log = logging.getLogger(__name__)

KEPT_JOBS = 50
TOLD_AGAIN = 10**15
"""Event numbers of a job told from the store begin here.

Those of a job taken up again after a restart begin at the time in milliseconds: also above all that came before.  A
training can go on after it was told from the store, so its numbers are the sum of both; events told within the same
millisecond as its end, or while it was taken up again, are fewer than MARGIN.
"""
MARGIN = 1000


@dataclass
class Ledger:
    """What is known about jobs.  Any thread; ``lock`` is held where a state is read and then changed."""

    store: JobStore
    events: Events
    lock: RLock = field(default_factory=RLock)
    _live: OrderedDict[str, Job] = field(default_factory=OrderedDict)
    _unsaved: dict[str, Job] = field(default_factory=dict)

    def begin(self) -> None:
        """Take up the jobs that an earlier start left; those that failed too often are marked so."""
        for job in self.store.recover():
            log.warning("job %s: %s", job.id, job.error)
        for job in self.store.in_state(JobState.QUEUED, JobState.PAUSED):
            again = TOLD_AGAIN + 3 * MARGIN if job.kind == TRAINING else 0
            self.events.begin(job.id, int(time.time() * 1000) + again)
            self.events.tell(job.id, job.state.value, asdict(job.progress))
            for output in job.outputs:
                self.events.tell(job.id, "picture", asdict(output))

    def add(self, kind: str, request: Mapping[str, Any], progress: Progress, picture: str = "") -> Job:
        """A new job in the queue; ``picture`` is the digest of the file that a reproduction is about."""
        job = Job(
            id=uuid.uuid4().hex,
            kind=kind,
            state=JobState.QUEUED,
            request=request,
            progress=progress,
            created=time.time(),
        )
        self.store.add(job, picture)
        self.events.tell(job.id, "queued", asdict(job.progress))
        return self.job(job.id)

    def job(self, job_id: str) -> Job:
        """A job as it stands now.  Raises NotFoundError."""
        with self.lock:
            live = self._live.get(job_id)
        return self._placed(live or self.store.job(job_id))

    def live(self, job_id: str) -> Job:
        """A job that is under way."""
        with self.lock:
            return self._live[job_id]

    def recent(self, limit: int) -> list[Job]:
        """The newest jobs first."""
        with self.lock:
            live = dict(self._live)
        return [self._placed(live.get(job.id, job)) for job in self.store.recent(limit)]

    def active(self) -> list[Job]:
        """The running jobs, then the queued ones in order, then those that are paused."""
        found = self.store.in_state(JobState.RUNNING, JobState.QUEUED, JobState.PAUSED)
        running = [self.job(job.id) for job in found if job.state is JobState.RUNNING]
        ahead = {training: sum((job.kind == TRAINING) is training for job in running) for training in (False, True)}
        queued = []
        for job in (job for job in found if job.state is JobState.QUEUED):
            queued.append(replace(job, ahead=ahead[job.kind == TRAINING]))
            ahead[job.kind == TRAINING] += 1
        paused = [job for job in found if job.state is JobState.PAUSED]
        return [*(job for job in running if not job.state.is_over), *queued, *paused]

    def start(self, job: Job) -> Job | None:
        """The job under way from now on, None when it is not in the queue any more."""
        with self.lock:
            if self.store.job(job.id).state is not JobState.QUEUED:
                return None
            job = replace(job, state=JobState.RUNNING, started=time.time(), ahead=0)
            self.store.begin(job)
            self.keep(job)
        self.events.tell(job.id, "started", asdict(job.progress))
        return job

    def queue_again(self, job: Job) -> None:
        """Put a job that stopped back into the queue."""
        progress = replace(job.progress, eta_s=None, phase="waiting")
        job = replace(job, state=JobState.QUEUED, error=None, started=None, finished=None, progress=progress)
        with self.lock:
            self.store.save(job)
            self._unsaved.pop(job.id, None)  # how it ended before is not recorded over it
            self.keep(job)
        self.events.tell(job.id, "queued", asdict(progress))

    def pause(self, job: Job) -> None:
        """Let a job that does not compute wait until a person lets it go on."""
        progress = replace(job.progress, eta_s=None, phase=JobState.PAUSED.value)
        job = replace(job, state=JobState.PAUSED, ahead=0, progress=progress)
        with self.lock:
            self.store.save(job)
            self.keep(job)
        self.events.tell(job.id, "paused", asdict(progress))

    def finish(self, job: Job, state: JobState, data: Mapping[str, Any]) -> bool:
        """Record how a job ended; False when it could not be written yet (the disk is full), which is tried again."""
        progress = replace(job.progress, eta_s=None, phase=state.value)
        job = replace(job, state=state, error=data.get("error"), finished=time.time(), ahead=0, progress=progress)
        self.keep(job)
        saved = True
        try:
            self.store.save(job)
        except OutputError as error:
            log.error("%s", error)
            self._unsaved[job.id] = job
            saved = False
        self.events.tell(job.id, state.value, data)
        return saved

    def save_late(self) -> bool:
        """Record how jobs ended that could not be recorded then; whether there were any.  Raises OutputError."""
        with self.lock:
            late = list(self._unsaved.values())
            for job in late:
                self.store.save(job)
                del self._unsaved[job.id]
        return bool(late)

    def keep(self, job: Job) -> None:
        """Remember a job as it stands now, in memory alone."""
        with self.lock:
            self._live[job.id] = job
            self._live.move_to_end(job.id)
            over = [kept.id for kept in self._live.values() if kept.state.is_over and kept.id not in self._unsaved]
            for old in over[: max(len(self._live) - KEPT_JOBS, 0)]:
                del self._live[old]

    def _placed(self, job: Job) -> Job:
        """The job with its place in the queue."""
        return replace(job, ahead=self.store.ahead(job.id)) if job.state is JobState.QUEUED else job


def told_again(job: Job) -> list[Event]:
    """The events that matter of a job that is over, from its record.

    Their numbers are above all that were told while it ran: a listener that resumes hears how it ended.
    """
    ended = int((job.finished or job.created) * 1000)
    first = TOLD_AGAIN + (ended + 4 * MARGIN if job.kind == TRAINING else 0)
    told: list[tuple[str, dict[str, Any]]] = [("picture", asdict(output)) for output in job.outputs]
    told += [("exported", {"path": path}) for path in job.files]
    told.append((job.state.value, {"error": job.error} if job.error else dict(job.verdict or {})))
    return [Event(job.id, first + number, kind, data) for number, (kind, data) in enumerate(told)]
