"""Where sampling starts: which sigmas are walked, and how much picture and noise the first latent holds.

The pipeline asks once per job; the latent is ``start.picture * latent + start.noise * noise``.  Step counts as in
AUTOMATIC1111 ``modules/sd_samplers_common.py`` (setup_img2img_steps) and its two kinds of samplers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING

from webui.diffusion.schedules import NoiseTable, Schedule, ScheduleOptions, karras_levels

if TYPE_CHECKING:
    from webui.samplers import Sampler

LARGEST_STRENGTH = 0.999


@dataclass(frozen=True)
class Start:
    """The ``sigmas`` a sampler walks (at least two), and the factors of clean latent and unit noise before it.

    ``levels`` are the lowest level above 0 and the highest one of the whole schedule, which a Brownian path spans; of
    those walked when not given.
    """

    sigmas: list[float]
    picture: float
    noise: float
    levels: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.levels == (0.0, 0.0):
            object.__setattr__(self, "levels", _ends(self.sigmas))


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    """Wishes of the user about the schedule.

    ``sigma_min`` and ``sigma_max`` replace its ends (0: the model's own); ``discard_penultimate`` makes it for one step
    more and leaves its last level above 0 out, which some samplers do anyway; ``full_noise`` starts txt2img with the
    variance of a noised picture, sqrt(1 + sigma**2), instead of that of the noise alone.
    """

    sigma_min: float = 0.0
    sigma_max: float = 0.0
    discard_penultimate: bool = False
    full_noise: bool = False
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)


PLAIN = StartOptions()


def start_from_noise(
    sampler: Sampler, schedule: Schedule, table: NoiseTable, steps: int, options: StartOptions = PLAIN
) -> Start:
    """txt2img: the whole walk.  Samplers with a grid of their own start from variance-preserving noise."""
    if sampler.grid is None:
        sigmas = _scheduled(sampler, schedule, table, steps, options)
        if sampler.ignores_schedule:
            ends = table.between(options.sigma_min, options.sigma_max)
            sigmas = karras_levels(steps + 1, ends.sigma_max, ends.sigma_min)
        return Start(sigmas, picture=0.0, noise=math.hypot(1.0, sigmas[0]) if options.full_noise else sigmas[0])
    sigmas = _distinct(sampler.grid(table, steps))
    if sampler.respaced is not None:
        sigmas = _distinct(sampler.respaced(table, sigmas, True))
    return Start(sigmas, picture=0.0, noise=math.sqrt(1.0 + sigmas[0] ** 2))


def start_from_picture(
    sampler: Sampler,
    schedule: Schedule,
    table: NoiseTable,
    steps: int,
    strength: float,
    options: StartOptions = PLAIN,
    *,
    exact_steps: bool = False,
) -> Start:
    """img2img: the end of the walk that denoising ``strength`` (0 to 1) leaves.

    Normally int(strength * steps) + 1 of ``steps`` steps are walked; ``exact_steps`` (the second pass of a high
    resolution fix) makes the whole walk longer, so that ``steps`` of it are left.
    """
    kept = steps_from_picture(steps, strength) - 1
    strength = min(strength, LARGEST_STRENGTH)
    if exact_steps:
        kept, steps = steps - 1, int(steps / strength) if strength > 0 else steps
    if sampler.grid is None:
        whole = _scheduled(sampler, schedule, table, steps, options)
        sigmas = whole[min(steps - kept - 1, len(whole) - 2) :]
        return Start(sigmas, picture=1.0, noise=sigmas[0], levels=_ends(whole))
    start = _start_on_grid(_distinct(sampler.grid(table, steps)), kept)
    if sampler.respaced is None:
        return start
    return replace(start, sigmas=_distinct(sampler.respaced(table, start.sigmas, False)))


def steps_from_picture(steps: int, strength: float) -> int:
    """How many of ``steps`` steps denoising ``strength`` (0 to 1) leaves."""
    return int(min(strength, LARGEST_STRENGTH) * steps) + 1


def _scheduled(
    sampler: Sampler, schedule: Schedule, table: NoiseTable, steps: int, options: StartOptions
) -> list[float]:
    """The levels of the schedule for this sampler, at least two."""
    table = (sampler.table(table) if sampler.table else table).between(options.sigma_min, options.sigma_max)
    discard = sampler.discards_penultimate or options.discard_penultimate
    sigmas = schedule.levels(table, steps + 1 if discard else steps, options.schedule)
    if discard:
        sigmas = [*sigmas[:-2], sigmas[-1]]
    return _distinct(sigmas)


def _ends(sigmas: Iterable[float]) -> tuple[float, float]:
    positive = [sigma for sigma in sigmas if sigma > 0]
    return min(positive), max(positive)


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
