"""What the engine tells about a job: its record, its pictures and its events.  Plain values, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

GENERATING = "generate"
"""The kind of a job that makes pictures of a prompt."""
TRAINING = "train"
"""The kind of a training job; all other kinds make pictures."""


class JobState(StrEnum):
    """Where a job stands.

    ``INTERRUPTED`` keeps the pictures that were finished.  ``PAUSED`` is a training that waits, with a checkpoint on
    disk, until a person lets it go on.
    """

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self not in (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)


@dataclass(frozen=True, kw_only=True)
class Output:
    """One saved picture.  ``id`` is unique and opaque; ``path`` is relative to the outputs folder."""

    id: str
    path: str
    index: int
    seed: int
    width: int
    height: int
    infotext: str


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a running job is.

    ``step`` of ``steps`` counts model steps over all pictures; ``picture`` of ``pictures`` counts from 1.
    ``eta_s`` is the expected time left in seconds, None until a step was timed.  ``preview`` is the number of the
    newest preview (0: none yet).  ``phase`` is a word for a person: "waiting", "loading the model", "sampling",
    "decoding", "saving"; of a training, whose steps are those of learning, also "encoding pictures 300 of 4000",
    "training", "waiting for pictures to be finished"; of Extras, whose steps are the tiles of a picture, "enlarging".
    """

    step: int = 0
    steps: int = 0
    picture: int = 0
    pictures: int = 0
    eta_s: float | None = None
    preview: int = 0
    phase: str = "waiting"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the store keeps it.  Times are seconds since 1970; ``request`` is ``GenerationRequest.to_dict()``.

    ``kind`` is "generate", "extras", "reproduce" or "train"; a reproduction's ``verdict`` is the plain form of
    ``metadata.verdict``.  The ``request`` of "extras" is ``ExtrasRequest.to_dict()``, that of a training is
    ``TrainingRequest.to_dict()``, and ``files`` are the absolute paths of the model files that came out.  ``ahead``
    counts the jobs that come first in the queue.
    """

    id: str
    kind: str
    state: JobState
    request: Mapping[str, Any]
    progress: Progress = field(default_factory=Progress)
    outputs: tuple[Output, ...] = ()
    files: tuple[str, ...] = ()
    error: str | None = None
    verdict: Mapping[str, Any] | None = None
    created: float = 0.0
    started: float | None = None
    finished: float | None = None
    ahead: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        data = asdict(self)
        data["state"] = self.state.value
        data["request"] = dict(self.request)
        return data


@dataclass(frozen=True)
class Event:
    """One thing that happened to a job.

    ``number`` counts up within the job, so that a listener can resume after the last one it saw.  ``kind`` is one of
    "queued", "started", "step", "preview", "picture", "done", "failed", "interrupted", and of a training "paused",
    "loss", "sample", "saved", "exported"; ``data`` are plain values: the fields of :class:`Progress` for "queued",
    "started", "paused", "step" and "preview"; those of :class:`Output` for "picture"; ``{"points": [[step, loss,
    rate], ...]}`` for "loss"; ``{"step"}`` for "sample" and "saved"; ``{"path"}`` for "exported"; ``{"error":
    sentence}`` for "failed"; the verdict, if any, for "done".
    """

    job: str
    number: int
    kind: str
    data: Mapping[str, Any]

    @property
    def is_last(self) -> bool:
        """Whether no event of this job can follow."""
        return self.kind in ("done", "failed", "interrupted")
