"""Task ids, under which clients ask how far their job is, and the job that is under way."""

from __future__ import annotations

import random
import string
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

from webui.engine.engine import Engine
from webui.engine.jobs import TRAINING, Job, JobState

KEPT = 200


@dataclass
class Tasks:
    """Which job a task id stands for; the newest are remembered."""

    engine: Engine
    _jobs: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def add(self, task: str | None, kind: str, job: Job) -> None:
        """Remember a job under the id that its client chose, or a new one."""
        letters = random.choices(string.ascii_uppercase + string.digits, k=7)
        with self._lock:
            self._jobs[task or f"task({kind}-{''.join(letters)})"] = job.id
            while len(self._jobs) > KEPT:
                self._jobs.popitem(last=False)

    def job(self, task: str | None) -> Job | None:
        """The job of a task, None for one that is not known."""
        with self._lock:
            found = self._jobs.get(task or "")
        return self.engine.job(found) if found else None

    def name(self, job: Job) -> str:
        """The task id of a job; its own for one that no client of this API started."""
        with self._lock:
            return next((task for task, known in self._jobs.items() if known == job.id), f"task({job.id})")

    def pending(self) -> list[str]:
        """The task ids of the jobs that wait, in their order."""
        return [self.name(job) for job in self.engine.active() if job.state is JobState.QUEUED]

    def running(self) -> Job | None:
        """The job that makes pictures at the moment."""
        active = self.engine.active()
        return next((job for job in active if job.state is JobState.RUNNING and job.kind != TRAINING), None)
