"""Control pictures brought to the size of the picture that is made, and sources to the size a preprocessor sees.

The rules are those of Mikubill/sd-webui-controlnet (``scripts/controlnet.py``, ``detectmap_proc``;
``annotator/util.py``, ``resize_image_with_pad``), so that the same control picture steers the same way here.
"""

from __future__ import annotations

from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.uint8]
"""A picture (H, W, 3) or a mask (H, W), uint8."""
FEW_COLOURS = 200
"""A picture of fewer colours, but more than two, is a map of kinds, whose colours must not mix."""


class ResizeMode(StrEnum):
    """What becomes of a control picture of other proportions than the picture."""

    JUST_RESIZE = "Just Resize"
    CROP = "Crop and Resize"
    FILL = "Resize and Fill"


def at_resolution(pixels: Levels, resolution: int) -> Levels:
    """The picture with a shorter side of ``resolution``: cubic when it grows, by the mean of areas when it shrinks."""
    height, width = pixels.shape[:2]
    factor = resolution / min(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return _resized(pixels, size, cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA)


def pixel_perfect(pixels: Levels, width: int, height: int, mode: ResizeMode) -> int:
    """The resolution at which a preprocessor must see a picture for its result to fit without being scaled."""
    factors = (height / pixels.shape[0], width / pixels.shape[1])
    factor = min(factors) if mode is ResizeMode.FILL else max(factors)
    return int(np.round(factor * min(pixels.shape[:2])))


def fitted(pixels: Levels, width: int, height: int, mode: ResizeMode) -> Levels:
    """The control picture with ``height`` rows and ``width`` columns.

    What Fill adds has the median colour of the outermost pixels.  Pictures of two levels stay so, and lines of one
    pixel keep that width; maps of few colours get no new ones.
    """
    if mode is ResizeMode.JUST_RESIZE:
        return carefully_resized(pixels, width, height)
    factors = (height / pixels.shape[0], width / pixels.shape[1])
    factor = max(factors) if mode is ResizeMode.CROP else min(factors)
    new_height, new_width = (max(1, int(np.round(side * factor))) for side in pixels.shape[:2])
    scaled = carefully_resized(pixels, new_width, new_height)
    if mode is ResizeMode.CROP:
        top, left = max(0, (new_height - height) // 2), max(0, (new_width - width) // 2)
        return np.ascontiguousarray(scaled[top : top + height, left : left + width])
    return _on_ground(scaled, width, height, _border_colour(pixels))


def _on_ground(pixels: Levels, width: int, height: int, colour: NDArray[np.float64]) -> Levels:
    ground = np.empty((height, width, *pixels.shape[2:]), np.uint8)
    ground[:] = colour.astype(np.uint8)
    top, left = (height - pixels.shape[0]) // 2, (width - pixels.shape[1]) // 2
    ground[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return ground


def _border_colour(pixels: Levels) -> NDArray[np.float64]:
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return np.asarray(np.median(border, axis=0))


def carefully_resized(pixels: Levels, width: int, height: int) -> Levels:
    """The control picture resized by what it is: lines, two levels, a map of kinds, or anything else."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = width * height < pixels.shape[0] * pixels.shape[1]
    colours = _count_colours(pixels)
    if 2 < colours < FEW_COLOURS:
        return _resized(pixels, (width, height), cv2.INTER_NEAREST)
    resized = _resized(pixels, (width, height), cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    if colours != 2 or pixels.min() >= 16 or pixels.max() <= 240:
        return resized
    grey = resized if resized.ndim == 2 else resized.mean(axis=2).clip(0, 255).astype(np.uint8)
    _, two_levels = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    levels = thinned(np.asarray(two_levels, np.uint8)) if _is_thin(pixels) else np.asarray(two_levels, np.uint8)
    return levels if pixels.ndim == 2 else np.repeat(levels[:, :, None], 3, axis=2)


def _count_colours(pixels: Levels) -> int:
    """How many colours there are; counted no further than FEW_COLOURS matters."""
    flat = pixels.reshape(-1, pixels.shape[2] if pixels.ndim == 3 else 1).astype(np.uint32)
    codes = flat @ np.array([65536, 256, 1][3 - flat.shape[1] :], np.uint32)
    return len(np.unique(codes))


def _is_thin(pixels: Levels) -> bool:
    """Whether more than half of what is white goes away when lines of one pixel do."""
    square = np.ones((3, 3), np.uint8)
    opened = cv2.dilate(cv2.erode(pixels, square), square)
    return bool(2 * np.count_nonzero(opened < pixels) > np.count_nonzero(pixels > 127))


def thinned(levels: Levels) -> Levels:
    """White (255) on black with every stroke brought to a width of one pixel.

    Zhang and Suen 1984, doi:10.1145/357994.358023.  (Upstream thins by a pattern search of its own; both leave
    the middle line.)
    """
    image = np.pad(levels > 127, 1)
    while True:
        before = np.count_nonzero(image)
        for first in (True, False):
            image[1:-1, 1:-1] &= ~_removable(image, first=first)
        if np.count_nonzero(image) == before:
            return image[1:-1, 1:-1].astype(np.uint8) * 255


def _removable(image: NDArray[np.bool_], *, first: bool) -> NDArray[np.bool_]:
    """The pixels that one of the paper's two sub-iterations deletes."""
    steps = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))  # P2 to P9
    rows, columns = image.shape
    around = [image[1 + y : rows - 1 + y, 1 + x : columns - 1 + x] for y, x in steps]
    count = np.sum(around, axis=0)
    turns = np.sum([~a & b for a, b in zip(around, [*around[1:], around[0]], strict=True)], axis=0)
    north, east, south, west = around[0], around[2], around[4], around[6]
    if first:
        open_sides = ~(north & east & south) & ~(east & south & west)
    else:
        open_sides = ~(north & east & west) & ~(north & south & west)
    return np.asarray((count >= 2) & (count <= 6) & (turns == 1) & open_sides)


def _resized(pixels: Levels, size: tuple[int, int], interpolation: int) -> Levels:
    return np.ascontiguousarray(cv2.resize(pixels, size, interpolation=interpolation), dtype=np.uint8)
