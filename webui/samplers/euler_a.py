"""Euler ancestral: part of each step's noise is taken away and drawn anew.  DDIM and DDPM take the same step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.samplers import Denoise, NoiseSource, Sampler, Step

if TYPE_CHECKING:
    from torch import Tensor


def ancestral_split(sigma: float, lower: float, eta: float) -> tuple[float, float]:
    """(down, up): the level to step down to and the fresh noise to add, so that down**2 + up**2 == lower**2.

    As crowsonkb/k-diffusion ``k_diffusion/sampling.py`` (get_ancestral_step).  In variance-preserving terms ``up`` is
    the deviation of DDIM, arXiv:2010.02502 equation 16; with eta 1 that of DDPM's posterior, arXiv:2006.11239
    equation 7.
    """
    up = min(lower, eta * lower * math.sqrt(max(1.0 - (lower / sigma) ** 2, 0.0)))
    return math.sqrt(max(lower * lower - up * up, 0.0)), up


def euler_a(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float) -> Iterator[Step]:
    """An Euler step down to ``down``, then fresh noise up to the next level.  n calls; one draw per step above 0."""
    for sigma, lower in pairwise(sigmas):
        denoised = denoise(x, sigma)
        down, up = ancestral_split(sigma, lower, eta)
        x = x + (x - denoised) / sigma * (down - sigma)
        if up > 0:
            x = x + noise(sigma, lower) * up
        yield Step(x, denoised, sigma)


@hookimpl
def register_samplers() -> list[Sampler]:
    """Euler a."""
    return [Sampler(name="Euler a", integrate=euler_a, aliases=("k_euler_a", "k_euler_ancestral"), default_eta=1.0)]
