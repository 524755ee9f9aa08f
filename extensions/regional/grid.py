"""ratios -> the places of a grid's regions.

As in hako-mikan/sd-webui-regional-prompter: ``1,2,1`` are three columns, the middle one twice as wide.  ``1,2,1;2,1``
are two rows: in each the first number is the row's height and the others are its columns' widths.  In Rows mode rows
and columns change places, and so do ``,`` and ``;``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from webui.errors import RequestError

COLUMNS, ROWS = "Columns", "Rows"
EXAMPLE = "1,2,1 or 1,2,1;2,1"
MAX_RATIO = 1e9
"""Far beyond any use; sums of larger ones would end in infinity."""


@dataclass(frozen=True)
class Band:
    """A row (in Rows mode a column): its share of the picture, and the shares of its regions in it."""

    share: float
    regions: tuple[float, ...]


def parse(ratios: str, mode: str) -> tuple[Band, ...]:
    """The bands that ratios say.  Raises RequestError for what is no ratio."""
    outer, inner = (";", ",") if mode == COLUMNS else (",", ";")
    if ";" not in ratios:
        return (Band(1.0, _numbers(ratios, ",", ratios)),)
    bands = []
    for text in ratios.split(outer):
        share, *regions = _numbers(text, inner, ratios)
        bands.append(Band(share, tuple(regions) or (1.0,)))
    return tuple(bands)


def numbers(text: str) -> tuple[float, ...]:
    """Numbers between commas, from 0 on.  Raises ValueError."""
    found = tuple(float(part) for part in text.split(","))
    if not all(math.isfinite(number) and number >= 0 for number in found):
        raise ValueError("negative or no number")
    return found


def _numbers(text: str, divider: str, ratios: str) -> tuple[float, ...]:
    try:
        found = numbers(text.replace(divider, ","))
    except ValueError:
        found = (0.0,)
    if not all(0 < number <= MAX_RATIO for number in found):
        raise RequestError(f'Regional: Ratios is "{ratios}"; it must be numbers above 0 such as {EXAMPLE}, or empty.')
    return found


def bands_for(ratios: str, mode: str, count: int, bands: tuple[int, ...] | None) -> tuple[Band, ...]:
    """The bands for ``count`` texts; empty ratios divide evenly.  Raises RequestError when they do not fit."""
    wanted = bands or (count,)
    if not ratios.strip():
        return tuple(Band(1.0, (1.0,) * regions) for regions in wanted)
    found = parse(ratios, mode)
    given = tuple(len(band.regions) for band in found)
    if (given != wanted) if bands else (sum(given) != count):
        texts = " + ".join(map(str, wanted))
        raise RequestError(
            f'Regional: the ratios "{ratios}" make {" + ".join(map(str, given))} regions and the prompt has {texts}; '
            "write as many texts as regions, or leave Ratios empty to divide the picture evenly."
        )
    return found


def places(bands: Sequence[Band], mode: str) -> list[tuple[float, float, float, float]]:
    """Each region's rectangle (left, top, right, bottom) in shares of the picture, in the order of the texts."""
    found = []
    for band, (start, end) in zip(bands, pairwise(_ends([band.share for band in bands])), strict=True):
        for low, high in pairwise(_ends(band.regions)):
            found.append((low, start, high, end) if mode == COLUMNS else (start, low, end, high))
    return found


def _ends(shares: Sequence[float]) -> list[float]:
    """Where the parts of a line of length 1 begin, and 1."""
    ends = np.cumsum([0.0, *shares]) / np.sum(shares)
    return [*np.clip(ends[:-1], 0, 1).tolist(), 1.0]


def masks(bands: Sequence[Band], mode: str, width: int, height: int) -> NDArray[np.float32]:
    """How much of each pixel a region covers, 0 to 1: (regions, height, width), in the order of the texts."""
    along, across = (height, width) if mode == COLUMNS else (width, height)
    found = []
    for band, line in zip(bands, _cover([band.share for band in bands], along), strict=True):
        for part in _cover(band.regions, across):
            region = np.outer(line, part)
            found.append(region if mode == COLUMNS else region.T)
    return np.stack(found).astype(np.float32)


def _cover(shares: Sequence[float], size: int) -> list[NDArray[np.float64]]:
    """How much of each of ``size`` pixels belongs to each share of a line."""
    ends = np.cumsum([0.0, *shares]) / sum(shares) * size
    pixels = np.arange(size)
    return [
        np.clip(np.minimum(end, pixels + 1) - np.maximum(start, pixels), 0, 1) for start, end in pairwise(ends.tolist())
    ]
