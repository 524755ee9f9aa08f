"""DDPM's ancestral sampling on a schedule of sigmas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.samplers import Denoise, NoiseSource, Sampler, Step
from webui.samplers.euler_a import euler_a

if TYPE_CHECKING:
    from torch import Tensor


def ddpm(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float) -> Iterator[Step]:
    """Ho et al. 2020 (arXiv:2006.11239), equations 6, 7, between any two levels.  n calls, one draw per step above 0.

    Divided by sqrt(a), the posterior mean weighs the clean latent by 1 - r and the noisy one by r = (lower / sigma)**2,
    and its deviation is lower * sqrt(1 - r): the step of Euler ancestral with eta 1.  It walks a schedule as
    lllyasviel/stable-diffusion-webui-forge ``modules_forge/alter_samplers.py`` (DDPM) does, not the training timesteps.
    """
    yield from euler_a(denoise, x, sigmas, noise, eta=eta)


@hookimpl
def register_samplers() -> list[Sampler]:
    """DDPM."""
    return [Sampler(name="DDPM", integrate=ddpm, aliases=("ddpm",), default_eta=1.0)]
