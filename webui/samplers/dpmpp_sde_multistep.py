"""SDE-DPM-Solver++ with two and three steps of memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.samplers import Denoise, NoiseSource, Sampler, Step

if TYPE_CHECKING:
    from torch import Tensor


def dpmpp_2m_sde(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float, heun: bool = False
) -> Iterator[Step]:
    """Second order for the ODE: Lu et al. 2022 (arXiv:2211.01095), section 5.  n calls, a draw per step above 0.

    ``heun`` chooses the other of the two weights of equal order.  As crowsonkb/k-diffusion
    ``k_diffusion/sampling.py`` (sample_dpmpp_2m_sde).
    """
    earlier: Tensor | None = None
    h_last = 0.0
    for sigma, lower in pairwise(sigmas):
        denoised = denoise(x, sigma)
        if lower <= 0:
            x = denoised
        else:
            h = math.log(sigma / lower)
            x = _first_order(x, denoised, h, eta)
            if earlier is not None:
                weight = _phi_2(h * (1 + eta)) if heun else -0.5 * math.expm1(-h * (1 + eta))
                x = x + weight * (h / h_last) * (denoised - earlier)
            x = _with_noise(x, noise, sigma, lower, h, eta)
            h_last = h
        earlier = denoised
        yield Step(x, denoised, sigma)


def dpmpp_3m_sde(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float
) -> Iterator[Step]:
    """Third order for the ODE: the clean latent is extrapolated from three.  n calls, a draw per step above 0.

    As crowsonkb/k-diffusion ``k_diffusion/sampling.py`` (sample_dpmpp_3m_sde).
    """
    seen: list[tuple[Tensor, float]] = []
    for sigma, lower in pairwise(sigmas):
        denoised = denoise(x, sigma)
        if lower <= 0:
            x = denoised
        else:
            h = math.log(sigma / lower)
            x = _first_order(x, denoised, h, eta) + _bend(denoised, seen, h, h * (1 + eta))
            x = _with_noise(x, noise, sigma, lower, h, eta)
            seen = [(denoised, h), *seen[:1]]
        yield Step(x, denoised, sigma)


def _first_order(x: Tensor, denoised: Tensor, h: float, eta: float) -> Tensor:
    return math.exp(-h * (1 + eta)) * x - math.expm1(-h * (1 + eta)) * denoised


def _bend(denoised: Tensor, seen: Sequence[tuple[Tensor, float]], h: float, whole: float) -> Tensor:
    """What the clean latents before this one add to a step of first order; ``seen`` is (latent, step), newest first."""
    if not seen:
        return 0.0 * denoised
    (first, h_1), older = seen[0], seen[1:]
    slope = (denoised - first) * (h / h_1)
    if not older:
        return _phi_2(whole) * slope
    second, h_2 = older[0]
    r_0, r_1 = h_1 / h, h_2 / h
    curve = (slope - (first - second) / r_1) / (r_0 + r_1)
    return _phi_2(whole) * (slope + curve * r_0) - (_phi_2(whole) / whole - 0.5) * curve


def _phi_2(h: float) -> float:
    return math.expm1(-h) / h + 1.0


def _with_noise(x: Tensor, noise: NoiseSource, sigma: float, lower: float, h: float, eta: float) -> Tensor:
    if eta == 0:
        return x
    return x + noise(sigma, lower) * (lower * math.sqrt(-math.expm1(-2 * h * eta)))


BUILT_IN: tuple[Sampler, ...] = (
    Sampler(
        name="DPM++ 2M SDE",
        integrate=dpmpp_2m_sde,
        aliases=("k_dpmpp_2m_sde",),
        default_schedule="Exponential",
        default_eta=1.0,
        brownian=True,
        scales_noise=True,
    ),
    Sampler(
        name="DPM++ 2M SDE Heun",
        integrate=partial(dpmpp_2m_sde, heun=True),
        aliases=("k_dpmpp_2m_sde_heun",),
        default_schedule="Exponential",
        default_eta=1.0,
        brownian=True,
        scales_noise=True,
    ),
    Sampler(
        name="DPM++ 3M SDE",
        integrate=dpmpp_3m_sde,
        aliases=("k_dpmpp_3m_sde",),
        default_schedule="Exponential",
        default_eta=1.0,
        brownian=True,
        scales_noise=True,
        discards_penultimate=True,
    ),
)


@hookimpl
def register_samplers() -> list[Sampler]:
    """DPM++ 2M SDE, DPM++ 2M SDE Heun, DPM++ 3M SDE."""
    return list(BUILT_IN)
