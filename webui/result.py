"""What came out: pictures as numbers, and the facts about the place they were made in.

Standard library and numpy types only; built by the pipeline and the engine, written into files by ``metadata``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""A picture: (H, W, 3) uint8 RGB."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The facts outside the request that can change a bit of the picture."""

    webui: str
    torch: str
    transformers: str | None
    device: str
    dtype: str
    attention: str
    threads: int
    cpu: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the recipe."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class TensorCounts:
    """Of a file's tensors so many were used, had names that the model has not, or had another shape than there."""

    used: int
    unknown: int
    misshapen: int


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model file that was read: what it was used as, its name in the list of models, its full SHA-256.

    ``tensors`` tells of a LoRA how much of it fitted the model.
    """

    role: str
    name: str
    sha256: str
    tensors: TensorCounts | None = None


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plugin that took part in making a picture."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class MadePicture:
    """One finished picture.  ``index`` counts from 0 over the whole job; its seed is the job's seed + index.

    ``plugins`` are the extensions that could change a pixel of it, as they were when it was begun.
    """

    pixels: Pixels
    index: int
    seed: int
    infotext_extra: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[Plugin, ...] = ()
