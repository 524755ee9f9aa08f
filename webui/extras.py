"""A finished picture made larger, its faces mended: what the Extras tab does, as values and one function.

The order, names and rules of size are those of AUTOMATIC1111 1.10 (``scripts/postprocessing_upscale.py``,
``postprocessing_gfpgan.py``, ``postprocessing_codeformer.py``).
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

from webui.errors import PictureError, RequestError
from webui.faces import FaceRestorer, FaceWork, find_restorer, restored
from webui.images.pixels import MAX_PIXELS
from webui.records import build, check_digest, check_flag, check_range, check_text, check_whole, plain
from webui.upscalers import NONE, Upscaler, Work, find_upscaler, upscaled_by

if TYPE_CHECKING:
    from webui.result import Pixels

MAX_SIDE = 16_384
MAX_PICTURES = 10_000
GFPGAN = "GFPGAN"
CODEFORMER = "CodeFormer"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A size to reach: the picture is enlarged until it covers it; with ``crop`` what stands over is cut off."""

    width: int = 512
    height: int = 512
    crop: bool = True

    def __post_init__(self) -> None:
        check_whole("Width", self.width, 8, MAX_SIDE)
        check_whole("Height", self.height, 8, MAX_SIDE)
        check_flag("Crop to fit", self.crop)


@dataclass(frozen=True, kw_only=True)
class Enlargement:
    """Made larger ``by`` a factor, or ``to`` a size; by two upscalers, the second laid over the first.

    ``max_side`` (0: none) holds for factors: a picture that would have a longer side gets this one.  Upscaler "None"
    leaves the picture as it is.
    """

    upscaler: str = NONE
    by: float = 4.0
    to: Target | None = None
    max_side: int = 0
    second: str = NONE
    second_visibility: float = 0.0

    def __post_init__(self) -> None:
        check_text("Upscaler 1", self.upscaler)
        check_range("Resize", self.by, 0.05, 16)
        check_whole("Max side length", self.max_side, 0, MAX_SIDE)
        check_text("Upscaler 2", self.second)
        check_range("Upscaler 2 visibility", self.second_visibility, 0, 1)


@dataclass(frozen=True, kw_only=True)
class ExtrasRequest:
    """Pictures, named by the SHA-256 of stored inputs, and what is to be done with each.

    ``names`` are their file names, for the files that come out.  Visibilities are from 0 (left out) to 1;
    ``codeformer_weight`` 0 is the strongest effect.  With ``faces_first`` faces are mended before the picture is
    enlarged.  ``tile`` and ``overlap`` as in ``webui.upscalers.Work``.
    """

    images: tuple[str, ...]
    names: tuple[str, ...] = ()
    upscale: Enlargement = field(default_factory=Enlargement)
    gfpgan_visibility: float = 0.0
    codeformer_visibility: float = 0.0
    codeformer_weight: float = 0.0
    faces_first: bool = False
    tile: int = 192
    overlap: int = 8

    def __post_init__(self) -> None:
        if not 1 <= len(self.images) <= MAX_PICTURES:
            raise RequestError(f"There are {len(self.images)} pictures; from 1 to {MAX_PICTURES} are done in one job.")
        for digest in self.images:
            check_digest("A picture", digest)
        for name in self.names:
            check_text("A picture's name", name)
        check_range("GFPGAN visibility", self.gfpgan_visibility, 0, 1)
        check_range("CodeFormer visibility", self.codeformer_visibility, 0, 1)
        check_range("CodeFormer weight", self.codeformer_weight, 0, 1)
        check_flag("Faces first", self.faces_first)
        check_whole("Tile size", self.tile, 0, 4096)
        check_whole("Tile overlap", self.overlap, 0, 2048)
        Work(tile=self.tile, overlap=self.overlap)

    def alone(self, index: int) -> Self:
        """The request for just one of its pictures."""
        return replace(self, images=self.images[index : index + 1], names=self.names[index : index + 1])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the inverse of :meth:`from_dict`."""
        return typing.cast(dict[str, Any], plain(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from plain values; absent fields take their defaults, unknown ones are an error that names them."""
        return typing.cast(Self, build(cls, data, "extras"))


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What there is to work with; ``after_tile`` as in ``webui.upscalers.Work``."""

    upscalers: Sequence[Upscaler]
    restorers: Sequence[FaceRestorer]
    faces: FaceWork
    after_tile: Callable[[int, int], None]


def checked(request: ExtrasRequest, upscalers: Sequence[Upscaler], restorers: Sequence[FaceRestorer]) -> ExtrasRequest:
    """The request with its upscalers' own names.  Raises RequestError for an unknown one, or one of latents."""
    first, second = (find_upscaler(name, upscalers) for name in (request.upscale.upscaler, request.upscale.second))
    for upscaler in (first, second):
        if upscaler.is_latent:
            raise RequestError(f'The upscaler "{upscaler.name}" enlarges latents; choose another one for a picture.')
    for name, visibility in _visibilities(request):
        if visibility > 0:
            find_restorer(name, restorers)
    return replace(request, upscale=replace(request.upscale, upscaler=first.name, second=second.name))


def process(pixels: Pixels, request: ExtrasRequest, tools: Tools) -> tuple[Pixels, dict[str, str]]:
    """The picture (H, W, 3) uint8 as the request wants it, and what was done as pairs for its text, in order.

    Raises RequestError, NotFoundError and CheckpointError for upscalers and restorers that cannot be used.
    """
    steps = [_enlarge, *(_mend(name, visibility) for name, visibility in _visibilities(request))]
    if request.faces_first:
        steps = [*steps[1:], steps[0]]
    done: dict[str, str] = {}
    for step in steps:
        pixels = step(pixels, request, tools, done)
    return pixels, done


def _visibilities(request: ExtrasRequest) -> tuple[tuple[str, float], ...]:
    return (GFPGAN, request.gfpgan_visibility), (CODEFORMER, request.codeformer_visibility)


def _enlarge(pixels: Pixels, request: ExtrasRequest, tools: Tools, done: dict[str, str]) -> Pixels:
    how = request.upscale
    if how.upscaler == NONE:
        return pixels
    work = Work(tile=request.tile, overlap=request.overlap, after_tile=tools.after_tile)
    first = _enlarged(pixels, how, find_upscaler(how.upscaler, tools.upscalers), work, done)
    done["Postprocess upscaler"] = how.upscaler
    if how.second == NONE or how.second_visibility == 0:
        return first
    second = _enlarged(pixels, how, find_upscaler(how.second, tools.upscalers), work, done)
    done["Postprocess upscaler 2"] = how.second
    done["Postprocess upscaler 2 visibility"] = f"{how.second_visibility:g}"
    return np.array(Image.blend(Image.fromarray(first), Image.fromarray(second), how.second_visibility))


def _enlarged(pixels: Pixels, how: Enlargement, upscaler: Upscaler, work: Work, done: dict[str, str]) -> Pixels:
    height, width = pixels.shape[:2]
    by = how.by
    if how.to is not None:
        by = max(how.to.width / width, how.to.height / height)
        done["Postprocess upscale to"] = f"{how.to.width}x{how.to.height}"
    else:
        done["Postprocess upscale by"] = f"{by:g}"
        if how.max_side and max(height, width) * by > how.max_side:
            limited = _limited(width * by, height * by, how.max_side)
            by = max(limited[0] / width, limited[1] / height)
            done["Max side length"] = str(how.max_side)
    _check_size(width * by, height * by)
    pixels = upscaled_by(pixels, by, upscaler, work)
    if how.to is not None and how.to.crop:
        pixels = _cropped(pixels, how.to)
        done["Postprocess crop to"] = f"{how.to.width}x{how.to.height}"
    return pixels


def _limited(width: float, height: float, side: int) -> tuple[int, int]:
    """The size in the same proportions whose longer side is ``side``."""
    if height > width:
        return max(1, int(side * width // height)), side
    return side, max(1, int(side * height // width))


def _check_size(width: float, height: float) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise PictureError(
            f"The picture would have {width:.0f}x{height:.0f} pixels; at most {MAX_PIXELS // 1024**2} megapixels "
            f"and {MAX_SIDE} a side are made. Choose a smaller factor, or a max side length."
        )


def _cropped(pixels: Pixels, target: Target) -> Pixels:
    """The middle of the picture, ``target`` in size, with black where it is smaller."""
    result = Image.new("RGB", (target.width, target.height))
    place = (target.width // 2 - pixels.shape[1] // 2, target.height // 2 - pixels.shape[0] // 2)
    result.paste(Image.fromarray(pixels), place)
    return np.array(result)


def _mend(name: str, visibility: float) -> Callable[[Pixels, ExtrasRequest, Tools, dict[str, str]], Pixels]:
    def mend(pixels: Pixels, request: ExtrasRequest, tools: Tools, done: dict[str, str]) -> Pixels:
        if visibility == 0:
            return pixels
        restorer = find_restorer(name, tools.restorers)
        done[f"{name} visibility"] = f"{round(visibility, 3):g}"
        if name == CODEFORMER:
            done["CodeFormer weight"] = f"{round(request.codeformer_weight, 3):g}"
        return restored(pixels, restorer, replace(tools.faces, weight=request.codeformer_weight), visibility)

    return mend
