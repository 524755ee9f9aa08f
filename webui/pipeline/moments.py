"""What a pipeline tells while it works: it yields these, and whoever consumes them shows, saves or stops.

Stopping is closing the generator: between any two moments nothing is half done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webui.result import MadePicture

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Stepped:
    """A sampling step is done: ``step`` of ``steps`` for the pictures ``indices``; ``denoised`` (B, C, h, w)."""

    indices: tuple[int, ...]
    step: int
    steps: int
    denoised: Tensor


@dataclass(frozen=True)
class Enlarging:
    """The first pass of the pictures ``indices`` is done and what it made is enlarged for the second."""

    indices: tuple[int, ...]


@dataclass(frozen=True)
class Decoding:
    """The latent of picture ``index`` is finished and now becomes a picture."""

    index: int


@dataclass(frozen=True)
class Made:
    """A picture is finished."""

    picture: MadePicture


Moment = Stepped | Enlarging | Decoding | Made
