"""The larger sheet that outpainting puts a picture on: how far each side grows, and what of it is not known yet.

Used by both outpainting scripts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from webui.errors import RequestError
from webui.records import shown
from webui.request import MAX_SIDE, GenerationRequest, InpaintArea, Mask, Part, Size, StartImage
from webui.result import Pixels
from webui.scripts import Begun, Expansion, Page
from webui.scripts import Sheet as Overview

MULTIPLE = 64
"""The sides of the finished picture are multiples of this where they grow, as AUTOMATIC1111 rounds them."""
DIRECTIONS = ("left", "right", "up", "down")
GRID = 8
"""The sides of what the network sees are multiples of this."""

Flags = NDArray[np.bool_]
"""(H, W), whether a pixel is meant."""


class Growth(NamedTuple):
    """How many pixels are added at each side."""

    left: int = 0
    right: int = 0
    up: int = 0
    down: int = 0


def growth(size: tuple[int, int], pixels: int, directions: Growth) -> Growth:
    """By how much a picture (width, height) grows: ``pixels`` in each direction that is not 0, and the rounding up.

    Raises RequestError when no direction is chosen, or the result would be too large.
    """
    if not any(directions):
        raise RequestError("Outpainting has no direction; choose left, right, up or down.")
    left, right = _along(size[0], pixels, directions.left, directions.right)
    up, down = _along(size[1], pixels, directions.up, directions.down)
    width, height = size[0] + left + right, size[1] + up + down
    if max(width, height) > MAX_SIDE:
        raise RequestError(f"The picture would grow to {width} x {height} pixels; at most {MAX_SIDE} a side are made.")
    return Growth(left, right, up, down)


def _along(side: int, pixels: int, before: int, after: int) -> tuple[int, int]:
    count = bool(before) + bool(after)
    added = math.ceil((side + count * pixels) / MULTIPLE) * MULTIPLE - side if count else 0
    first = added // count if before else 0
    return first, added - first


@dataclass(frozen=True)
class Sheet:
    """A picture of ``size`` (width, height) with ``grows`` pixels added around it."""

    size: tuple[int, int]
    grows: Growth

    @property
    def width(self) -> int:
        """Of the whole sheet."""
        return self.size[0] + self.grows.left + self.grows.right

    @property
    def height(self) -> int:
        """Of the whole sheet."""
        return self.size[1] + self.grows.up + self.grows.down

    def unknown(self) -> Flags:
        """Where there is nothing of the picture."""
        found = np.ones((self.height, self.width), np.bool_)
        self._inside(found)[...] = False
        return found

    def laid(self, pixels: Pixels) -> Pixels:
        """The picture on the black sheet."""
        laid = np.zeros((self.height, self.width, 3), np.uint8)
        self._inside(laid)[...] = pixels
        return laid

    def _inside(self, sheet: NDArray[Any]) -> NDArray[Any]:
        width, height = self.size
        return sheet[self.grows.up : self.grows.up + height, self.grows.left : self.grows.left + width]


def widened(flags: Flags, reach: int) -> Flags:
    """True within ``reach`` pixels of what is, along rows and columns (a square, not a circle)."""
    return _widened(_widened(flags, reach).T, reach).T


def _widened(flags: Flags, reach: int) -> Flags:
    """Along the columns: those among whose 2 * reach + 1 neighbours there is one."""
    counted = np.pad(flags.astype(np.int32), ((reach + 1, reach), (0, 0))).cumsum(axis=0)
    widened: Flags = counted[2 * reach + 1 :] > counted[: -2 * reach - 1]
    return widened


def as_mask(flags: Flags) -> NDArray[np.uint8]:
    """(H, W) uint8, 255 where it is painted anew."""
    return np.where(flags, 255, 0).astype(np.uint8)


def begun_with(request: GenerationRequest, script: str) -> StartImage:
    """The start image of a request for outpainting.  Raises RequestError when it has none, or a mask."""
    if request.start is None:
        raise RequestError(f"{script} begins with a picture; choose a start image.")
    if request.start.mask is not None:
        raise RequestError(f"{script} makes its own mask; take the mask away.")
    return request.start


@dataclass(frozen=True)
class Stage:
    """One step of the way to a picture: a request and what it begins with, made of the picture before."""

    request: GenerationRequest
    prepare: Callable[[Pixels], Begun]


def chained(chains: Sequence[Sequence[Stage]]) -> Expansion:
    """Each chain's stages one after the other; the last stage's picture is the chain's."""
    length = len(chains[0])
    stages = [stage for chain in chains for stage in chain]
    finished = tuple(range(length - 1, len(stages), length))
    overview = Overview(pages=(Page(cells=finished, columns=len(finished)),))
    return Expansion(
        requests=tuple(stage.request for stage in stages),
        follows={place: place - 1 for place in range(len(stages)) if place % length},
        prepared={place: stage.prepare for place, stage in enumerate(stages)},
        finished=finished,
        sheets=(overview,) if len(finished) > 1 else (),
    )


def stage(
    request: GenerationRequest, sheet: Sheet, part: Part, mask: Mask, prepare: Callable[[Pixels], Begun]
) -> Stage:
    """The stage that paints the part of a sheet: the whole of it as a picture of its own, else as the masked part."""
    assert request.start is not None
    seen = network_size(part)
    if not (seen.width, seen.height) == (sheet.width, sheet.height) == (part.width, part.height):
        mask = replace(mask, area=InpaintArea.ONLY_MASKED, part=part)
    return Stage(replace(request, script=None, size=seen, start=replace(request.start, mask=mask)), prepare)


def network_size(part: Part) -> Size:
    """The smallest size of the network that holds the part; other sides are resampled to multiples of 8."""
    return Size(width=max(64, -(-part.width // GRID) * GRID), height=max(64, -(-part.height // GRID) * GRID))


def chosen_directions(given: Any) -> dict[str, bool]:
    """The options that a list of directions means.  Raises RequestError for other words."""
    if not isinstance(given, list | tuple) or not set(map(str, given)) <= set(DIRECTIONS):
        known = ", ".join(DIRECTIONS)
        raise RequestError(f"The outpainting direction is {shown(given)}; it must be a list of {known}.")
    return {direction: direction in given for direction in DIRECTIONS}
