"""Euler's method on the probability-flow ODE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.samplers import Denoise, NoiseSource, Sampler, Step

if TYPE_CHECKING:
    from torch import Tensor


def euler(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float) -> Iterator[Step]:
    """First order: Karras et al. 2022 (arXiv:2206.00364), algorithm 1 without its corrector and churn.  n calls."""
    for sigma, lower in pairwise(sigmas):
        denoised = denoise(x, sigma)
        x = x + (x - denoised) / sigma * (lower - sigma)
        yield Step(x, denoised, sigma)


@hookimpl
def register_samplers() -> list[Sampler]:
    """Euler."""
    return [Sampler(name="Euler", integrate=euler, aliases=("k_euler",))]
