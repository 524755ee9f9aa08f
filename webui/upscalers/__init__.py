"""Small picture or latent -> large one.  A drop-in folder: each file registers :class:`Upscaler` s.

The second pass ("hires fix") and Extras use them.  Registered here are those that need no weights; each model file
in the models folder is one more (``webui.upscalers.files``).  Importing these modules does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from webui.diffusion.schedules import lookup
from webui.errors import RequestError
from webui.images.resize import resize

if TYPE_CHECKING:
    from torch import Tensor

    from webui.result import Pixels

MAX_RUNS = 3
"""So often a model is run on its own result until the picture is large enough."""
TARGET_MULTIPLE = 8
"""Sides of a picture that is enlarged by a factor are multiples of this."""


def _ignore(done: int, total: int) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Work:
    """How a picture is to be worked on.

    ``tile`` and ``overlap`` are pixels of the small picture (``tile`` 0: the whole picture at once), as
    AUTOMATIC1111's settings ``ESRGAN_tile`` and ``ESRGAN_tile_overlap``.  ``after_tile`` (tiles done, tiles in all)
    hears of progress; it raises JobCancelled to stop the work.
    """

    tile: int = 192
    overlap: int = 8
    after_tile: Callable[[int, int], None] = _ignore

    def __post_init__(self) -> None:
        if self.tile and (self.tile < 16 or not 0 <= self.overlap <= self.tile // 2):
            raise RequestError(
                f"A tile of {self.tile} pixels with an overlap of {self.overlap} is no use; a tile has 0 (the whole "
                "picture) or at least 16 pixels, and overlaps by at most half of it."
            )


class Enlarge(Protocol):
    """A picture (H, W, 3) uint8 made larger: by ``scale``, or by whatever factor is this upscaler's own."""

    def __call__(self, pixels: Pixels, scale: float, work: Work) -> Pixels:
        """The larger picture, (H2, W2, 3) uint8."""
        ...


class ResizeLatent(Protocol):
    """A latent (B, C, h, w) brought to another size."""

    def __call__(self, latent: Tensor, height: int, width: int) -> Tensor:
        """The latent (B, C, height, width)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Upscaler:
    """An upscaler: of pictures (``enlarge``) or of latents (``resize_latent``), never of both.

    ``scale`` is for show: the factor of one run, as far as the name tells it.  ``path`` is the model file, if any.
    """

    name: str
    scale: float = 4.0
    enlarge: Enlarge | None = None
    resize_latent: ResizeLatent | None = None
    aliases: tuple[str, ...] = ()
    path: str = ""

    def __post_init__(self) -> None:
        if (self.enlarge is None) is (self.resize_latent is None):
            raise ValueError(f'the upscaler "{self.name}" must have either enlarge or resize_latent')

    @property
    def is_latent(self) -> bool:
        """Whether it works on latents."""
        return self.resize_latent is not None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it answers to, the one that users see first."""
        return (self.name, *self.aliases)


def find_upscaler(name: str, upscalers: Iterable[Upscaler]) -> Upscaler:
    """The upscaler with this name or alias, whatever its case; RequestError when there is none."""
    return lookup("upscaler", name, ((upscaler.names, upscaler) for upscaler in upscalers))


WORK = Work()


def upscaled_by(pixels: Pixels, scale: float, upscaler: Upscaler, work: Work = WORK) -> Pixels:
    """The picture ``scale`` times as large, its sides rounded down to multiples of 8 (at least 8).

    Run until it is large enough, at most 3 times; the rest is done by Lanczos.  The rule of AUTOMATIC1111 1.10
    (``modules/upscaler.py``, ``Upscaler.upscale``).  Raises RequestError for a latent upscaler.
    """
    enlarge = _enlarge(upscaler)
    height, width = (
        max(TARGET_MULTIPLE, int(side * scale // TARGET_MULTIPLE * TARGET_MULTIPLE)) for side in pixels.shape[:2]
    )
    for run in range(MAX_RUNS):
        if pixels.shape[0] >= height and pixels.shape[1] >= width and (run > 0 or scale != 1):
            break
        before, pixels = pixels.shape, enlarge(pixels, scale, work)
        if pixels.shape == before:
            break
    return _exactly(pixels, width, height)


def upscaled(pixels: Pixels, width: int, height: int, upscaler: Upscaler, work: Work = WORK) -> Pixels:
    """The picture at exactly this size: enlarged by the larger of the two factors, the rest done by Lanczos.

    A picture that is to become smaller is not enlarged first.  As AUTOMATIC1111 1.10 ``modules/images.py``
    (``resize_image``, mode 0), which the second pass uses.  Raises RequestError for a latent upscaler.
    """
    _enlarge(upscaler)
    scale = max(width / pixels.shape[1], height / pixels.shape[0])
    if scale > 1 and upscaler.name != NONE:
        pixels = upscaled_by(pixels, scale, upscaler, work)
    return _exactly(pixels, width, height)


def resized_latent(latent: Tensor, height: int, width: int, upscaler: Upscaler) -> Tensor:
    """The latent (B, C, height, width).  Raises RequestError for an upscaler of pictures."""
    if upscaler.resize_latent is None:
        raise RequestError(f'The upscaler "{upscaler.name}" enlarges pictures, not latents.')
    return upscaler.resize_latent(latent, height, width)


NONE = "None"
"""The upscaler that leaves everything to Lanczos, and in Extras does nothing."""


def _enlarge(upscaler: Upscaler) -> Enlarge:
    if upscaler.enlarge is None:
        raise RequestError(f'The upscaler "{upscaler.name}" enlarges latents; choose another one for a picture.')
    return upscaler.enlarge


def _exactly(pixels: Pixels, width: int, height: int) -> Pixels:
    return pixels if pixels.shape[:2] == (height, width) else resize(pixels, width, height)


def resampled(pixels: Pixels, scale: float, resampling: Image.Resampling) -> Pixels:
    """The picture with sides int(side * scale), resampled by Pillow."""
    height, width = (max(1, int(side * scale)) for side in pixels.shape[:2])
    return np.array(Image.fromarray(pixels).resize((width, height), resampling))
