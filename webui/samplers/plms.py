"""PLMS: pseudo linear multistep on the training timesteps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from webui.diffusion.schedules import timestep_grid
from webui.hooks import hookimpl
from webui.samplers import Denoise, NoiseSource, Sampler, Step
from webui.samplers.ddim import ending_variance_preserving

if TYPE_CHECKING:
    from torch import Tensor

ADAMS_BASHFORTH = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}
"""Weights of the newest, second newest, ... slope, by how many there are."""


def plms(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float) -> Iterator[Step]:
    """Pseudo linear multistep: Liu et al. 2022 (arXiv:2202.09778), equation 12, with one Heun step first.  n + 1 calls.

    Second order on smoothly spaced sigmas (the weights assume even ones).  The last latent is the variance-preserving
    one, as DDIM's.
    """
    yield from ending_variance_preserving(_multistep(denoise, x, sigmas), sigmas)


def _multistep(denoise: Denoise, x: Tensor, sigmas: Sequence[float]) -> Iterator[Step]:
    slopes: deque[Tensor] = deque(maxlen=4)
    for sigma, lower in pairwise(sigmas):
        slopes.appendleft((x - denoise(x, sigma)) / sigma)
        if len(slopes) > 1:
            weights = ADAMS_BASHFORTH[len(slopes)]
            slope = sum((w * s for w, s in zip(weights[1:], list(slopes)[1:], strict=True)), weights[0] * slopes[0])
        elif lower > 0:
            guess = x + slopes[0] * (lower - sigma)
            slope = (slopes[0] + (guess - denoise(guess, lower)) / lower) / 2
        else:
            slope = slopes[0]
        denoised = x - sigma * slope
        x = x + slope * (lower - sigma)
        yield Step(x, denoised, sigma)


@hookimpl
def register_samplers() -> list[Sampler]:
    """PLMS."""
    return [Sampler(name="PLMS", integrate=plms, aliases=("plms",), grid=timestep_grid)]
