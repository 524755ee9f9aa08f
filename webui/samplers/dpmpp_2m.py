"""DPM-Solver++(2M): a two-step method that is exact for the linear part of the ODE."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.samplers import Denoise, NoiseSource, Sampler, Step

if TYPE_CHECKING:
    from torch import Tensor


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float) -> Iterator[Step]:
    """Second order: Lu et al. 2022 (arXiv:2211.01095), algorithm 2, with lambda = -ln sigma.  n calls.

    The first step, and the last one when it ends in 0 (where lambda is infinite), are first order.
    """
    earlier: Tensor | None = None
    h_last = 0.0
    for sigma, lower in pairwise(sigmas):
        denoised = denoise(x, sigma)
        target = denoised
        h = math.log(sigma / lower) if lower > 0 else math.inf
        if earlier is not None and lower > 0:
            weight = h / (2 * h_last)
            target = (1 + weight) * denoised - weight * earlier
        x = (lower / sigma) * x - math.expm1(-h) * target
        earlier, h_last = denoised, h
        yield Step(x, denoised, sigma)


@hookimpl
def register_samplers() -> list[Sampler]:
    """DPM++ 2M."""
    return [Sampler(name="DPM++ 2M", integrate=dpmpp_2m, aliases=("k_dpmpp_2m",), default_schedule="Karras")]
