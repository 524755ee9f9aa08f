"""What a run tells while it goes on.  Plain values, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Phase:
    """What is being done besides steps, for a person: "loading the model", "encoding pictures 300 of 4000"."""

    text: str


@dataclass(frozen=True)
class LeftOut:
    """Files that cannot be learnt from, a sentence each."""

    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Stepped:
    """A step was made: its losses, the learning rate, and the expected seconds left (None until one was timed)."""

    step: int
    steps: int
    losses: Mapping[str, float]
    rate: float
    eta_s: float | None


@dataclass(frozen=True)
class Sampled:
    """Samples of this step were drawn into one picture file."""

    step: int
    path: Path


@dataclass(frozen=True)
class Saved:
    """A checkpoint of the run was written: what came before this step cannot be lost any more."""

    step: int


@dataclass(frozen=True)
class Exported:
    """The file that was to be made."""

    path: Path


Moment = Phase | LeftOut | Stepped | Sampled | Saved | Exported
