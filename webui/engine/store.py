"""The durable record of jobs: SQLite in WAL mode beside the pictures.

A job is here before it is queued, a picture before its event is told, so that a crash loses nothing that was shown.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from webui.engine.jobs import TRAINING, Job, JobState, Output, Progress
from webui.errors import NotFoundError, OutputError

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
    request TEXT NOT NULL, progress TEXT NOT NULL, picture TEXT NOT NULL, error TEXT, verdict TEXT,
    created REAL NOT NULL, started REAL, finished REAL, attempts INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_state ON jobs (state, number);
CREATE TABLE IF NOT EXISTS outputs (
    id TEXT PRIMARY KEY, job TEXT NOT NULL REFERENCES jobs (id), picture_index INTEGER NOT NULL, path TEXT NOT NULL,
    seed INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, infotext TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS outputs_job ON outputs (job, picture_index);
"""
ADDED_COLUMNS = {"files": "TEXT NOT NULL DEFAULT '[]'"}
"""Columns of ``jobs`` that job lists of earlier versions lack."""
MAX_ATTEMPTS = 2
"""A job that was under way when the program ended is begun so many times in all."""
MAX_TRAINING_ATTEMPTS = 4
"""A training is begun so many times in all without coming to a new checkpoint."""
GIVEN_UP = "The program ended twice while this job was under way, so it was not started again."
GIVEN_UP_TRAINING = (
    "The training ended four times before it came to a new checkpoint, so it was not started again; its last "
    "checkpoint is kept, and it can be gone on with."
)
UNFINISHED = (JobState.QUEUED.value, JobState.RUNNING.value)


@dataclass
class JobStore:
    """The database at ``path``.  One connection, used from several threads under a lock."""

    path: Path
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(self.path, timeout=10, check_same_thread=False, isolation_level=None)
            self._database.row_factory = sqlite3.Row
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self._database.execute(f"PRAGMA {pragma}").close()
            self._database.executescript(SCHEMA)
            present = {row["name"] for row in self._database.execute("PRAGMA table_info(jobs)")}
            for column, declared in ADDED_COLUMNS.items():
                if column not in present:
                    self._database.execute(f"ALTER TABLE jobs ADD COLUMN {column} {declared}").close()
        except sqlite3.Error as error:
            raise OutputError(f"The job list {self.path} cannot be opened: {error}.") from error

    def add(self, job: Job, picture: str = "") -> None:
        """Record a new job; ``picture`` is the digest of the file that a reproduction is about."""
        self._write(
            "INSERT INTO jobs (id, kind, state, request, progress, picture, created) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (job.id, job.kind, job.state.value, json.dumps(dict(job.request)), json.dumps(asdict(job.progress)),
             picture, job.created),
        )  # fmt: skip

    def save(self, job: Job) -> None:
        """Record a job's state, progress, request, files, error and verdict."""
        self._write(
            "UPDATE jobs SET state = ?, request = ?, progress = ?, files = ?, error = ?, verdict = ?, started = ?, "
            "finished = ? WHERE id = ?",
            (job.state.value, json.dumps(dict(job.request)), json.dumps(asdict(job.progress)), json.dumps(job.files),
             job.error, json.dumps(job.verdict) if job.verdict is not None else None, job.started, job.finished,
             job.id),
        )  # fmt: skip

    def begin(self, job: Job) -> None:
        """Record that a job is under way, and count the attempt."""
        self.save(job)
        self._write("UPDATE jobs SET attempts = attempts + 1 WHERE id = ?", (job.id,))

    def release(self, job: Job) -> None:
        """Put a job that was under way back into the queue; the attempt does not count."""
        self.save(replace(job, state=JobState.QUEUED, started=None))
        self._write("UPDATE jobs SET attempts = attempts - 1 WHERE id = ?", (job.id,))

    def count_attempts(self, job: Job, attempts: int) -> None:
        """Record a job, and that it was begun so many times (since its last checkpoint, for a training)."""
        self.save(job)
        self._write("UPDATE jobs SET attempts = ? WHERE id = ?", (attempts, job.id))

    def may_begin_again(self, job: Job) -> bool:
        """Whether a job that was under way when its process ended is begun once more."""
        rows = self._read("SELECT attempts FROM jobs WHERE id = ?", (job.id,))
        return bool(rows) and rows[0]["attempts"] < (MAX_TRAINING_ATTEMPTS if job.kind == TRAINING else MAX_ATTEMPTS)

    def add_output(self, job_id: str, output: Output) -> None:
        """Record a saved picture."""
        self._write(
            "INSERT INTO outputs VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (output.id, job_id, output.index, output.path, output.seed, output.width, output.height, output.infotext),
        )

    def drop_outputs(self, job_id: str) -> None:
        """Forget the pictures of a job."""
        self._write("DELETE FROM outputs WHERE job = ?", (job_id,))

    def job(self, job_id: str) -> Job:
        """A job with its outputs.  Raises NotFoundError."""
        found = self._jobs("WHERE id = ?", (job_id,))
        if not found:
            raise NotFoundError(f"There is no job {job_id}.")
        return found[0]

    def recent(self, limit: int) -> list[Job]:
        """The newest jobs first."""
        return self._jobs("ORDER BY number DESC LIMIT ?", (limit,))

    def in_state(self, *states: JobState) -> list[Job]:
        """The jobs in these states at one moment, oldest first."""
        marks = ", ".join("?" * len(states))
        return self._jobs(f"WHERE state IN ({marks}) ORDER BY number", [state.value for state in states])

    def next_queued(self, training: bool = False) -> Job | None:
        """The oldest job in the queue of pictures, or of trainings; None when there is none."""
        found = self._jobs(
            "WHERE state = ? AND (kind = ?) = ? ORDER BY number LIMIT 1", (JobState.QUEUED.value, TRAINING, training)
        )
        return found[0] if found else None

    def wants_pictures(self) -> bool:
        """Whether a job that makes pictures is under way or queued."""
        return bool(
            self._read("SELECT 1 FROM jobs WHERE state IN (?, ?) AND kind != ? LIMIT 1", (*UNFINISHED, TRAINING))
        )

    def ahead(self, job_id: str) -> int:
        """How many jobs of the same queue are under way or were queued before this one."""
        rows = self._read(
            "SELECT count(*) AS ahead FROM jobs, (SELECT number AS own, kind AS own_kind FROM jobs WHERE id = ?) "
            "WHERE (kind = ?) = (own_kind = ?) AND number != own AND (state = ? OR (state = ? AND number < own))",
            (job_id, TRAINING, TRAINING, JobState.RUNNING.value, JobState.QUEUED.value),
        )
        return int(rows[0]["ahead"])

    def needs_picture(self, digest: str) -> bool:
        """Whether a job that is not over is about the file with this digest."""
        return bool(self._read("SELECT 1 FROM jobs WHERE state IN (?, ?) AND picture = ?", (*UNFINISHED, digest)))

    def picture(self, job_id: str) -> str:
        """The digest of the file that a reproduction is about, "" for other jobs."""
        rows = self._read("SELECT picture FROM jobs WHERE id = ?", (job_id,))
        return str(rows[0]["picture"]) if rows else ""

    def output(self, output_id: str) -> Output:
        """A picture's record.  Raises NotFoundError."""
        rows = self._read("SELECT * FROM outputs WHERE id = ?", (output_id,))
        if not rows:
            raise NotFoundError(f"There is no picture {output_id}.")
        return _output(rows[0])

    def recover(self) -> list[Job]:
        """After a restart: put jobs that were under way back into the queue, or mark them failed after some attempts.

        Returns the jobs that failed so.
        """
        failed = []
        for job in self.in_state(JobState.RUNNING):
            if self.may_begin_again(job):
                progress = replace(job.progress, preview=0)  # previews are kept in memory only
                self.save(replace(job, state=JobState.QUEUED, started=None, progress=progress))
            else:
                error = GIVEN_UP_TRAINING if job.kind == TRAINING else GIVEN_UP
                failed.append(replace(job, state=JobState.FAILED, error=error, finished=time.time()))
                self.save(failed[-1])
        return failed

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def _jobs(self, clause: str, values: Iterable[Any]) -> list[Job]:
        return [self._job(row) for row in self._read(f"SELECT * FROM jobs {clause}", values)]

    def _job(self, row: sqlite3.Row) -> Job:
        outputs = self._read("SELECT * FROM outputs WHERE job = ? ORDER BY picture_index", (row["id"],))
        return Job(
            id=row["id"],
            kind=row["kind"],
            state=JobState(row["state"]),
            request=json.loads(row["request"]),
            progress=Progress(**json.loads(row["progress"])),
            outputs=tuple(map(_output, outputs)),
            files=tuple(json.loads(row["files"])),
            error=row["error"],
            verdict=json.loads(row["verdict"]) if row["verdict"] else None,
            created=row["created"],
            started=row["started"],
            finished=row["finished"],
        )

    def _read(self, statement: str, values: Iterable[Any]) -> list[sqlite3.Row]:
        try:
            with self._lock, closing(self._database.execute(statement, tuple(values))) as cursor:
                return cursor.fetchall()
        except sqlite3.Error as error:
            raise OutputError(f"The job list {self.path} cannot be read: {error}.") from error

    def _write(self, statement: str, values: Iterable[Any]) -> None:
        try:
            with self._lock:
                self._database.execute(statement, tuple(values)).close()
        except sqlite3.Error as error:
            raise OutputError(f"The job list {self.path} cannot be written ({error}); is the disk full?") from error


def _output(row: sqlite3.Row) -> Output:
    return Output(
        id=row["id"],
        path=row["path"],
        index=row["picture_index"],
        seed=row["seed"],
        width=row["width"],
        height=row["height"],
        infotext=row["infotext"],
    )
