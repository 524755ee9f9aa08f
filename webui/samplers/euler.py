"""Euler's method on the probability-flow ODE."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.samplers import DEFAULTS, Denoise, NoiseSource, Sampler, Step, StepOptions

if TYPE_CHECKING:
    from torch import Tensor


def euler(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float,
    options: StepOptions = DEFAULTS,
) -> Iterator[Step]:
    """First order: Karras et al. 2022 (arXiv:2206.00364), algorithm 2 without its corrector.  n calls."""
    for sigma, lower in pairwise(sigmas):
        x, raised = churned(x, sigma, len(sigmas) - 1, noise, options)
        denoised = denoise(x, raised)
        x = x + (x - denoised) / raised * (lower - raised)
        yield Step(x, denoised, sigma)


def churned(x: Tensor, sigma: float, steps: int, noise: NoiseSource, options: StepOptions) -> tuple[Tensor, float]:
    """(x, sigma) with fresh noise added: arXiv:2206.00364, algorithm 2, lines 4 to 6; unchanged without churn.

    With churn, noise is drawn for every step, also for those it is not added to, as in crowsonkb/k-diffusion
    ``k_diffusion/sampling.py`` (sample_euler).
    """
    if options.churn <= 0:
        return x, sigma
    fresh = noise(sigma, sigma)
    if not options.churn_low <= sigma <= options.churn_high:
        return x, sigma
    raised = sigma * (1.0 + min(options.churn / steps, math.sqrt(2.0) - 1.0))
    return x + fresh * math.sqrt(raised**2 - sigma**2), raised


BUILT_IN: tuple[Sampler, ...] = (
    Sampler(
        name="Euler",
        integrate=euler,
        aliases=("k_euler",),
        tuned=lambda options: partial(euler, options=options),
        scales_noise=True,
    ),
)


@hookimpl
def register_samplers() -> list[Sampler]:
    """Euler."""
    return list(BUILT_IN)
