"""Pixels -> what rules can tell of them: colours, what stands before the background, where, how large, how many.

Pictures are (128, 128, 3) uint8.  Colours are compared in CIE Lab (D65) by their distance, ΔE of 1976.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray

from webui.result import Pixels
from webui.training.starter_data.compose import scenery
from webui.training.starter_data.vocabulary import COLOURS, SCENES

SIDE = 128
EDGE = 5
"""Width in px of the border that shows the background's colour."""
AWAY = 20.0
"""ΔE from the background at which a pixel belongs to an object."""
SPECK = 12
"""Smallest area in px that is not passed over when objects are counted."""
PART = 0.55
"""Share of the largest object's extent that counts as another object; less is a part or a stain."""
PLACES = {"left": (0.25, 0.5), "right": (0.75, 0.5), "top": (0.5, 0.25), "bottom": (0.5, 0.75), "middle": (0.5, 0.5)}

Lab = NDArray[np.float32]
Mask = NDArray[np.bool_]


def lab(pixels: NDArray[np.number]) -> Lab:
    """sRGB of 0 to 255 (..., 3) -> CIE Lab."""
    flat = np.asarray(pixels, np.float32).reshape(1, -1, 3) / 255
    return np.asarray(cv2.cvtColor(flat, cv2.COLOR_RGB2Lab), np.float32).reshape(pixels.shape)


NAMED = lab(np.array(list(COLOURS.values())))


def border(pixels: Pixels) -> NDArray[np.float64]:
    """Median colour of the upper, left and right border, sRGB."""
    parts = (pixels[:EDGE], pixels[:, :EDGE], pixels[:, -EDGE:])
    return np.asarray(np.median(np.concatenate([part.reshape(-1, 3) for part in parts]), axis=0), np.float64)


def background_colour(pixels: Pixels) -> str:
    """The colour name nearest to the border's median."""
    return tuple(COLOURS)[int(np.linalg.norm(NAMED - lab(border(pixels)), axis=1).argmin())]


def background_error(pixels: Pixels, colour: str) -> float:
    """Mean ΔE of the border's pixels from a named colour; stains count, a smooth average would hide them."""
    parts = (pixels[:EDGE], pixels[:, :EDGE], pixels[:, -EDGE:])
    edge = lab(np.concatenate([part.reshape(-1, 3) for part in parts]))
    return float(np.linalg.norm(edge - NAMED[tuple(COLOURS).index(colour)], axis=1).mean())


def foreground(pixels: Pixels) -> Mask:
    """Where the picture differs from its border's colour, specks of a few pixels left out."""
    away = np.linalg.norm(lab(pixels) - lab(border(pixels)), axis=-1) > AWAY
    opened = cv2.morphologyEx(away.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    return np.asarray(opened, bool)


def objects_seen(pixels: Pixels) -> int:
    """How many separate objects stand before the background: connected areas, those near each other in one."""
    mask = foreground(pixels).astype(np.uint8)
    stats = cv2.connectedComponentsWithStats(mask, connectivity=8)[2]  # left, top, width, height, area; first: behind
    boxes = _joined([(x, y, x + w, y + h) for x, y, w, h, area in stats[1:].tolist() if area >= SPECK])
    extents = [max(right - left, low - high) for left, high, right, low in boxes]
    return sum(extent >= max(extents, default=0) * PART for extent in extents)


def _joined(boxes: Sequence[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Boxes that overlap are one object's parts: an umbrella's handle, a whale's spout."""
    left = list(boxes)
    done: list[tuple[int, int, int, int]] = []
    while left:
        box = left.pop()
        other = next((o for o in left if _overlap(box, o)), None)
        if other is None:
            done.append(box)
            continue
        left.remove(other)
        left.append((min(box[0], other[0]), min(box[1], other[1]), max(box[2], other[2]), max(box[3], other[3])))
    return done


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def place(pixels: Pixels) -> str:
    """Which of the places, the middle among them, is nearest to the centre of the foreground's box; "" if empty."""
    rows, columns = np.nonzero(foreground(pixels))
    if not len(rows):
        return ""
    x, y = np.mean(columns) / SIDE, np.mean(rows) / SIDE
    return min(PLACES, key=lambda name: float(np.hypot(x - PLACES[name][0], y - PLACES[name][1])))


def extent(pixels: Pixels) -> float:
    """Longer side of what stands before the background, in parts of the picture's side; outliers of 1 % cut off."""
    rows, columns = np.nonzero(foreground(pixels))
    if not len(rows):
        return 0.0
    spans = [np.percentile(line, 99) - np.percentile(line, 1) for line in (rows, columns)]
    return float(max(spans)) / SIDE


def body_colour(pixels: Pixels) -> NDArray[np.float64]:
    """Mean Lab colour of what stands before the background; the background's own where nothing does."""
    mask = foreground(pixels)
    values = lab(pixels)[mask] if mask.any() else lab(border(pixels))[None]
    return np.asarray(values.mean(0), np.float64)


def scene(pixels: Pixels) -> str:
    """The scene, or plain colour, whose border is nearest to the picture's border."""
    names, layouts = _layouts()
    return names[int(np.linalg.norm(layouts - _layout(pixels), axis=-1).mean(1).argmin())]


def _layout(pixels: Pixels) -> Lab:
    """Lab means of the 28 outermost fields of 8 by 8, where an object seldom is."""
    small = lab(cv2.resize(pixels, (8, 8), interpolation=cv2.INTER_AREA))
    return np.concatenate([small[0], small[-1], small[1:-1, 0], small[1:-1, -1]])


@lru_cache(maxsize=1)
def _layouts() -> tuple[tuple[str, ...], Lab]:
    """Names and layouts of many drawings of each scene, and of the twelve plain colours."""
    drawn = [(name, _layout(np.asarray(scenery(name, Random(seed), SIDE)))) for name in SCENES for seed in range(12)]
    plain = [(name, np.broadcast_to(colour, (28, 3))) for name, colour in zip(COLOURS, NAMED, strict=True)]
    names, layouts = zip(*drawn, *plain, strict=True)
    return names, np.stack(layouts)
