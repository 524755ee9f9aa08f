"""CFG++ as samplers: towards the guided clean latent, re-noised with the noise that is seen without the prompt.

Chung et al. 2024 (arXiv:2406.08070): guidance stays on the manifold of pictures, and its scale goes from 0 to 1.  The
usual CFG scale is divided by 12.5, as for the program's own DDIM CFG++, so that 7 stays a usual value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from webui.samplers import Denoise, GuidedDenoise, NoiseSource, Sampler, Step
from webui.samplers.euler_a import ancestral_split

if TYPE_CHECKING:
    from torch import Tensor

CFG_DIVISOR = 12.5


def _both(denoise: Denoise, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """The guided clean latent and the unguided one, the same for a denoiser without guidance."""
    if isinstance(denoise, GuidedDenoise):
        return denoise.guided_and_unguided(x, sigma)
    clean = denoise(x, sigma)
    return clean, clean


def euler_a_cfgpp(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float
) -> Iterator[Step]:
    """Algorithm 2 of the paper, with fresh noise for a part of each step as Euler a has it.  n calls.

    Euler without an ``eta``.
    """
    for sigma, lower in pairwise(sigmas):
        denoised, unguided = _both(denoise, x, sigma)
        down, up = ancestral_split(sigma, lower, eta)
        x = denoised + (x - unguided) * (down / sigma)
        if up > 0:
            x = x + noise(sigma, lower) * up
        yield Step(x, denoised, sigma)


def euler_cfgpp(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float
) -> Iterator[Step]:
    """Algorithm 2 of the paper on any schedule.  n calls."""
    yield from euler_a_cfgpp(denoise, x, sigmas, noise, eta=0.0)


def dpmpp_2m_cfgpp(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float
) -> Iterator[Step]:
    """DPM-Solver++(2M) of the paper's appendix: the noise, and the earlier answer, are those without the prompt.

    With lambda = -ln sigma and a step h, x' = guided + e^-h (x - unguided) + (1 - e^-h) (guided - unguided before)
    / (2 r), where r is the step before in units of this one; as comfyanonymous/ComfyUI
    ``comfy/k_diffusion/sampling.py`` (sample_dpmpp_2m_cfg_pp) computes it.  The first step, and the last one when it
    ends in 0, are Euler's.  n calls.
    """
    earlier: Tensor | None = None
    h_last = 0.0
    for sigma, lower in pairwise(sigmas):
        denoised, unguided = _both(denoise, x, sigma)
        h = math.log(sigma / lower) if lower > 0 else math.inf
        x = denoised + (x - unguided) * (lower / sigma)
        if earlier is not None and lower > 0:
            x = x - math.expm1(-h) * h / (2 * h_last) * (denoised - earlier)
        earlier, h_last = unguided, h
        yield Step(x, denoised, sigma)


SAMPLERS = [
    Sampler(name="Euler CFG++", integrate=euler_cfgpp, aliases=("euler_cfg_pp",), cfg_divisor=CFG_DIVISOR),
    Sampler(
        name="Euler a CFG++",
        integrate=euler_a_cfgpp,
        aliases=("euler_ancestral_cfg_pp",),
        default_eta=1.0,
        cfg_divisor=CFG_DIVISOR,
    ),
    Sampler(
        name="DPM++ 2M CFG++",
        integrate=dpmpp_2m_cfgpp,
        aliases=("dpmpp_2m_cfg_pp",),
        default_schedule="Karras",
        cfg_divisor=CFG_DIVISOR,
    ),
]
