"""Heun's method on the probability-flow ODE, and Heun++."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.samplers import DEFAULTS, Denoise, NoiseSource, Sampler, Step, StepOptions
from webui.samplers.euler import churned

if TYPE_CHECKING:
    from torch import Tensor


def heun(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float,
    options: StepOptions = DEFAULTS,
) -> Iterator[Step]:
    """Second order: Karras et al. 2022 (arXiv:2206.00364), algorithm 2.  2n calls, 2n - 1 if the last sigma is 0."""
    for sigma, lower in pairwise(sigmas):
        x, raised = churned(x, sigma, len(sigmas) - 1, noise, options)
        denoised = denoise(x, raised)
        slope = (x - denoised) / raised
        if lower > 0:
            guess = x + slope * (lower - raised)
            slope = (slope + (guess - denoise(guess, lower)) / lower) / 2
        x = x + slope * (lower - raised)
        yield Step(x, denoised, sigma)


def heunpp2(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float) -> Iterator[Step]:
    """Up to three slopes a step, the later ones weighted by their level over k times the first.  3n - 3 calls (n > 1).

    The last step is Euler's, the one before it takes two slopes.  First order.  As lllyasviel/stable-diffusion-
    webui-forge ``k_diffusion/sampling.py`` (sample_heunpp2), which has it from Carzit/sd-webui-samplers-scheduler.
    """
    for index, (sigma, lower) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        slopes, point = [(x - denoised) / sigma], x
        ahead = sigmas[index + 1 : min(index + 3, len(sigmas) - 1)]
        for above, level in pairwise([sigma, *ahead]):
            point = point + slopes[-1] * (level - above)
            slopes.append((point - denoise(point, level)) / level)
        weights = [level / (len(slopes) * sigmas[0]) for level in ahead]
        slope = (1.0 - sum(weights)) * slopes[0]
        for weight, later in zip(weights, slopes[1:], strict=True):
            slope = slope + weight * later
        x = x + slope * (lower - sigma)
        yield Step(x, denoised, sigma)


BUILT_IN: tuple[Sampler, ...] = (
    Sampler(
        name="Heun",
        integrate=heun,
        aliases=("k_heun",),
        calls_per_step=2,
        tuned=lambda options: partial(heun, options=options),
        scales_noise=True,
    ),
    Sampler(name="HeunPP2", integrate=heunpp2, aliases=("heunpp2",), calls_per_step=3),
)


@hookimpl
def register_samplers() -> list[Sampler]:
    """Heun, HeunPP2."""
    return list(BUILT_IN)
