"""DDIM with CFG++: the guided clean latent, re-noised with the noise that is seen without the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from webui.diffusion.schedules import timestep_grid
from webui.hooks import hookimpl
from webui.samplers import Denoise, GuidedDenoise, NoiseSource, Sampler, Step
from webui.samplers.ddim import ending_variance_preserving
from webui.samplers.euler_a import ancestral_split

if TYPE_CHECKING:
    from torch import Tensor


def ddim_cfgpp(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float
) -> Iterator[Step]:
    """Chung et al. 2024 (arXiv:2406.08070), algorithm 2.  n calls.

    A denoiser that is no :class:`GuidedDenoise` has no guidance, and this is DDIM then.  The last latent is the
    variance-preserving one, as DDIM's.
    """
    yield from ending_variance_preserving(_steps(denoise, x, sigmas, noise, eta), sigmas)


def _steps(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, eta: float) -> Iterator[Step]:
    for sigma, lower in pairwise(sigmas):
        if isinstance(denoise, GuidedDenoise):
            denoised, unguided = denoise.guided_and_unguided(x, sigma)
        else:
            denoised = unguided = denoise(x, sigma)
        down, up = ancestral_split(sigma, lower, eta)
        x = denoised + (x - unguided) / sigma * down
        if up > 0:
            x = x + noise(sigma, lower) * up
        yield Step(x, denoised, sigma)


@hookimpl
def register_samplers() -> list[Sampler]:
    """DDIM CFG++.  Its guidance goes from 0 to 1, so the usual CFG scale is divided, as AUTOMATIC1111 does."""
    return [
        Sampler(
            name="DDIM CFG++",
            integrate=ddim_cfgpp,
            aliases=("ddim_cfgpp",),
            default_eta=0.0,
            grid=timestep_grid,
            cfg_divisor=12.5,
        )
    ]
