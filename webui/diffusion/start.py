"""Where sampling starts: which sigmas are walked, and how much picture and noise the first latent holds.

The pipeline asks once per job; the latent is ``start.picture * latent + start.noise * noise``.  Step counts as in
AUTOMATIC1111 ``modules/sd_samplers_common.py`` (setup_img2img_steps) and its two kinds of samplers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from webui.diffusion.schedules import NoiseTable, Schedule

if TYPE_CHECKING:
    from webui.samplers import Sampler

LARGEST_STRENGTH = 0.999


@dataclass(frozen=True)
class Start:
    """The ``sigmas`` a sampler walks (at least two), and the factors of clean latent and unit noise before it."""

    sigmas: list[float]
    picture: float
    noise: float


def start_from_noise(sampler: Sampler, schedule: Schedule, table: NoiseTable, steps: int) -> Start:
    """txt2img: the whole walk.  Samplers with a grid of their own start from variance-preserving noise."""
    if sampler.grid is None:
        sigmas = _distinct(schedule.sigmas(table, steps))
        return Start(sigmas, picture=0.0, noise=sigmas[0])
    sigmas = _distinct(sampler.grid(table, steps))
    return Start(sigmas, picture=0.0, noise=math.sqrt(1.0 + sigmas[0] ** 2))


def start_from_picture(
    sampler: Sampler, schedule: Schedule, table: NoiseTable, steps: int, strength: float, *, exact_steps: bool = False
) -> Start:
    """img2img: the end of the walk that denoising ``strength`` (0 to 1) leaves.

    Normally int(strength * steps) + 1 of ``steps`` steps are walked; ``exact_steps`` (the second pass of a high
    resolution fix) makes the whole walk longer, so that ``steps`` of it are left.
    """
    strength = min(strength, LARGEST_STRENGTH)
    kept = int(strength * steps)
    if exact_steps:
        kept, steps = steps - 1, int(steps / strength) if strength > 0 else steps
    if sampler.grid is None:
        sigmas = schedule.sigmas(table, steps)
        sigmas = _distinct(sigmas[min(steps - kept - 1, len(sigmas) - 2) :])
        return Start(sigmas, picture=1.0, noise=sigmas[0])
    return _start_on_grid(_distinct(sampler.grid(table, steps)), kept)


def _distinct(sigmas: Iterable[float]) -> list[float]:
    """Without repeated levels (more steps than timesteps): multistep formulas divide by the distance."""
    return [sigma for sigma, _ in groupby(sigmas)]


def _start_on_grid(grid: list[float], kept: int) -> Start:
    """The last ``kept`` entries of ``grid``, begun with the noise of the entry before them.

    That one entry too much of noise is AUTOMATIC1111's (``modules/sd_samplers_timesteps.py``, sample_img2img); pictures
    equal its own only so.  It walks nothing for ``kept`` below 2; here at least one step is walked, from its own level.
    """
    if kept < 2:
        return Start(grid[-2:], picture=1.0, noise=grid[-2])
    sigmas = grid[-kept:]
    level = grid[max(len(grid) - kept - 1, 0)]
    picture = math.sqrt((1.0 + sigmas[0] ** 2) / (1.0 + level**2))
    return Start(sigmas, picture=picture, noise=level * picture)
