"""DDIM on the training timesteps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from webui.diffusion.schedules import timestep_grid
from webui.hooks import hookimpl
from webui.samplers import Denoise, NoiseSource, Sampler, Step
from webui.samplers.euler_a import euler_a

if TYPE_CHECKING:
    from torch import Tensor


def ddim(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float) -> Iterator[Step]:
    """First order: Song et al. 2020 (arXiv:2010.02502), equation 12.  n calls.

    Divided by sqrt(a), its step is that of Euler ancestral with the same eta (eta 0: Euler).  The last latent is the
    variance-preserving one, sqrt(a) * x, as AUTOMATIC1111 ``modules/sd_samplers_timesteps_impl.py`` leaves it.
    """
    yield from ending_variance_preserving(euler_a(denoise, x, sigmas, noise, eta=eta), sigmas)


def ending_variance_preserving(steps: Iterator[Step], sigmas: Sequence[float]) -> Iterator[Step]:
    """The same steps, the last one's latent divided by sqrt(1 + sigma**2) of the level it ends at."""
    for number, step in enumerate(steps, start=1):
        last = number == len(sigmas) - 1
        yield replace(step, x=step.x / math.sqrt(1.0 + sigmas[-1] ** 2)) if last else step


@hookimpl
def register_samplers() -> list[Sampler]:
    """DDIM."""
    return [Sampler(name="DDIM", integrate=ddim, aliases=("ddim",), default_eta=0.0, grid=timestep_grid)]
