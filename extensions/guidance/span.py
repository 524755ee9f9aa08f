"""The part of the sampling in which a method has a say, as people set it: from a share of the steps to another."""

from __future__ import annotations

import math

from webui.diffusion.schedules import NoiseTable
from webui.errors import RequestError


def check_span(owner: str, start: float, end: float) -> None:
    """Refuse a part that ends before it starts.  Raises RequestError."""
    if start >= end:
        raise RequestError(f"{owner} starts at {start:g} and ends at {end:g} of the sampling; the end must come later.")


def noise_levels(start: float, end: float, table: NoiseTable) -> tuple[float, float]:
    """The lowest and the highest noise level (sigma) from ``start`` to ``end`` (0 to 1) of the sampling.

    0 is pure noise, 1 the finished picture; between them the trained timesteps are divided evenly, so that the same
    shares mean the same noise for any sampler, schedule and number of steps.
    """
    _, last = table.timesteps
    high = math.inf if start <= 0 else table.sigma((1 - start) * last)
    low = 0.0 if end >= 1 else table.sigma((1 - end) * last)
    return low, high
