"""DPM-Solver++(2S), ancestral, and DPM++ SDE: two model calls a step, part of whose noise is drawn anew."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.samplers import Denoise, NoiseSource, Sampler, Step
from webui.samplers.euler_a import ancestral_split

if TYPE_CHECKING:
    from torch import Tensor


def dpmpp_2s_a(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float
) -> Iterator[Step]:
    """Second order: Lu et al. 2022 (arXiv:2211.01095), algorithm 1, down to part of the next level.  2n calls.

    The step to 0 is first order (one call).
    """
    for sigma, lower in pairwise(sigmas):
        denoised = denoise(x, sigma)
        down, up = ancestral_split(sigma, lower, eta)
        target = denoised
        if down > 0:
            middle = math.sqrt(sigma * down)
            target = denoise(_towards(x, denoised, middle / sigma), middle)
        x = _towards(x, target, down / sigma)
        if up > 0:
            x = x + noise(sigma, lower) * up
        yield Step(x, denoised, sigma)


def dpmpp_sde(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float
) -> Iterator[Step]:
    """Second order for the ODE: as DPM-Solver++(2S), with fresh noise at the inner point, too.  2n calls.

    As crowsonkb/k-diffusion ``k_diffusion/sampling.py`` (sample_dpmpp_sde, r = 1/2).  The step to 0 is first order.
    """
    for sigma, lower in pairwise(sigmas):
        denoised = denoise(x, sigma)
        if lower <= 0:
            x = denoised
            yield Step(x, denoised, sigma)
            continue
        middle = math.sqrt(sigma * lower)
        down, up = ancestral_split(sigma, middle, eta)
        point = _towards(x, denoised, down / sigma)
        if up > 0:
            point = point + noise(sigma, middle) * up
        target = denoise(point, middle)
        down, up = ancestral_split(sigma, lower, eta)
        x = _towards(x, target, down / sigma)
        if up > 0:
            x = x + noise(sigma, lower) * up
        yield Step(x, denoised, sigma)


def _towards(x: Tensor, target: Tensor, share: float) -> Tensor:
    """Exact for a denoiser that always answers ``target``: the noise shrinks to ``share`` of what it is."""
    return share * x + (1.0 - share) * target


@hookimpl
def register_samplers() -> list[Sampler]:
    """DPM++ 2S a, DPM++ SDE."""
    return [
        Sampler(
            name="DPM++ 2S a",
            integrate=dpmpp_2s_a,
            aliases=("k_dpmpp_2s_a",),
            default_schedule="Karras",
            default_eta=1.0,
            calls_per_step=2,
            scales_noise=True,
        ),
        Sampler(
            name="DPM++ SDE",
            integrate=dpmpp_sde,
            aliases=("k_dpmpp_sde",),
            default_schedule="Karras",
            default_eta=1.0,
            calls_per_step=2,
            scales_noise=True,
            brownian=True,
        ),
    ]
