"""Heun's method on the probability-flow ODE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.samplers import Denoise, NoiseSource, Sampler, Step

if TYPE_CHECKING:
    from torch import Tensor


def heun(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float) -> Iterator[Step]:
    """Second order: Karras et al. 2022 (arXiv:2206.00364), algorithm 1.  2n calls, 2n - 1 if the last sigma is 0."""
    for sigma, lower in pairwise(sigmas):
        denoised = denoise(x, sigma)
        slope = (x - denoised) / sigma
        if lower > 0:
            guess = x + slope * (lower - sigma)
            slope = (slope + (guess - denoise(guess, lower)) / lower) / 2
        x = x + slope * (lower - sigma)
        yield Step(x, denoised, sigma)


@hookimpl
def register_samplers() -> list[Sampler]:
    """Heun."""
    return [Sampler(name="Heun", integrate=heun, aliases=("k_heun",), calls_per_step=2)]
