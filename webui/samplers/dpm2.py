"""DPM-Solver-2 in Karras' form: a midpoint step in ln(sigma); and its ancestral variant."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.samplers import DEFAULTS, Denoise, NoiseSource, Sampler, Step, StepOptions
from webui.samplers.euler import churned
from webui.samplers.euler_a import ancestral_split

if TYPE_CHECKING:
    from torch import Tensor


def dpm2(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float,
    options: StepOptions = DEFAULTS,
) -> Iterator[Step]:
    """Second order: the slope is taken at sqrt(sigma * lower), as Lu et al. 2022 (arXiv:2206.00927) suggest.

    2n calls, 2n - 1 if the last sigma is 0.  As crowsonkb/k-diffusion ``k_diffusion/sampling.py`` (sample_dpm_2).
    """
    for sigma, lower in pairwise(sigmas):
        x, raised = churned(x, sigma, len(sigmas) - 1, noise, options)
        denoised = denoise(x, raised)
        x = _midpoint(denoise, x, denoised, raised, lower)
        yield Step(x, denoised, sigma)


def dpm2_a(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float) -> Iterator[Step]:
    """The same step down to part of the next level, then fresh noise up to it; one draw per step above 0."""
    for sigma, lower in pairwise(sigmas):
        denoised = denoise(x, sigma)
        down, up = ancestral_split(sigma, lower, eta)
        x = _midpoint(denoise, x, denoised, sigma, down)
        if up > 0:
            x = x + noise(sigma, lower) * up
        yield Step(x, denoised, sigma)


def _midpoint(denoise: Denoise, x: Tensor, denoised: Tensor, sigma: float, lower: float) -> Tensor:
    slope = (x - denoised) / sigma
    if lower > 0:
        middle = math.sqrt(sigma * lower)
        guess = x + slope * (middle - sigma)
        slope = (guess - denoise(guess, middle)) / middle
    return x + slope * (lower - sigma)


BUILT_IN: tuple[Sampler, ...] = (
    Sampler(
        name="DPM2",
        integrate=dpm2,
        aliases=("k_dpm_2",),
        default_schedule="Karras",
        calls_per_step=2,
        discards_penultimate=True,
        scales_noise=True,
        tuned=lambda options: partial(dpm2, options=options),
    ),
    Sampler(
        name="DPM2 a",
        integrate=dpm2_a,
        aliases=("k_dpm_2_a",),
        default_schedule="Karras",
        default_eta=1.0,
        calls_per_step=2,
        discards_penultimate=True,
        scales_noise=True,
    ),
)


@hookimpl
def register_samplers() -> list[Sampler]:
    """DPM2, DPM2 a."""
    return list(BUILT_IN)
