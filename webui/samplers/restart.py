"""Restart sampling: Heun's method that goes back up with fresh noise and comes down again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from webui.diffusion.schedules import karras_levels
from webui.hooks import hookimpl
from webui.samplers import Denoise, NoiseSource, Sampler, Step
from webui.samplers.heun import heun

if TYPE_CHECKING:
    from torch import Tensor

RESTART_LOW, RESTART_HIGH = 0.1, 2.0


def restart(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float) -> Iterator[Step]:
    """Xu et al. 2023 (arXiv:2306.14878), algorithm 1, with Heun steps.  n steps in all, 2n calls or one less.

    From 20 steps on, 9 of them (from 36 on twice a quarter) go down from sigma 2 to 0.1 once more; the levels are
    Karras' then, between the highest and the lowest given.  As AUTOMATIC1111 ``modules/sd_samplers_extra.py``.
    """
    reached = sigmas[0]
    for sigma, lower in planned(sigmas):
        if reached < sigma:
            x = x + noise(reached, sigma) * math.sqrt(sigma**2 - reached**2)
        for step in heun(denoise, x, (sigma, lower), noise, eta=0.0):
            yield replace(step, sigma=sigma)
            x = step.x
        reached = lower


def planned(sigmas: Sequence[float]) -> list[tuple[float, float]]:
    """The steps (from, to) in order; a step that begins above where the one before it ended is a restart."""
    steps = len(sigmas) - 1
    if steps < 20:
        return list(pairwise(sigmas))
    length, times = (9, 1) if steps < 36 else (steps // 4, 2)
    kept = steps - length * times
    if sigmas[-1] > 0:
        levels = karras_levels(kept + 1, sigmas[0], sigmas[-1])
    else:
        levels = [*karras_levels(kept, sigmas[0], sigmas[-2]), 0.0]
    low, high = (min(range(len(levels)), key=lambda i: abs(levels[i] - at)) for at in (RESTART_LOW, RESTART_HIGH))
    walk = list(pairwise(levels))
    if high >= low:
        return walk
    again = list(pairwise(karras_levels(length + 1, levels[high], levels[low])))
    return walk[:low] + again * times + walk[low:]


@hookimpl
def register_samplers() -> list[Sampler]:
    """Restart."""
    return [
        Sampler(
            name="Restart",
            integrate=restart,
            aliases=("restart",),
            default_schedule="Karras",
            calls_per_step=2,
            plans_levels=True,
        )
    ]
