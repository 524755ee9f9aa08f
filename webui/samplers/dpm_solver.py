"""DPM-Solver with its own steps in lambda = -ln(sigma): a fixed plan ("fast") and steps as long as allowed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.samplers import Denoise, NoiseSource, Sampler, Step
from webui.samplers.euler_a import ancestral_split

if TYPE_CHECKING:
    from torch import Tensor

RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 0.05, 0.0078
FIRST_STEP = 0.05
ACCEPTED = 0.81


class Solver:
    """Steps of Lu et al. 2022 (arXiv:2206.00927) from one level; what the model says on the way is asked for once."""

    def __init__(self, denoise: Denoise, x: Tensor, sigma: float) -> None:
        self._denoise, self._x, self._sigma = denoise, x, sigma
        self._seen: dict[float, Tensor] = {}
        self.denoised = denoise(x, sigma)
        self._slope = (x - self.denoised) / sigma

    def first(self, lower: float) -> Tensor:
        """Equation 3.7, order 1."""
        return self._x - lower * math.expm1(self._h(lower)) * self._slope

    def second(self, lower: float, r: float = 1 / 2) -> Tensor:
        """Algorithm 4 (DPM-Solver-2) with its inner point at ``r`` of the way in lambda."""
        h = self._h(lower)
        correction = lower / (2 * r) * math.expm1(h) * (self._inner(h, r) - self._slope)
        return self.first(lower) - correction

    def third(self, lower: float) -> Tensor:
        """Algorithm 5 (DPM-Solver-3) with inner points at one and two thirds."""
        h, r1, r2 = self._h(lower), 1 / 3, 2 / 3
        level = self._sigma * math.exp(-r2 * h)
        bend = level * (r2 / r1) * (math.expm1(r2 * h) / (r2 * h) - 1) * (self._inner(h, r1) - self._slope)
        point = self._x - level * math.expm1(r2 * h) * self._slope - bend
        slope = (point - self._denoise(point, level)) / level
        return self.first(lower) - lower / r2 * (math.expm1(h) / h - 1) * (slope - self._slope)

    def _h(self, lower: float) -> float:
        return math.log(self._sigma / lower)

    def _inner(self, h: float, r: float) -> Tensor:
        """The slope at ``r`` of a step ``h`` long, found with order 1."""
        if r not in self._seen:
            level = self._sigma * math.exp(-r * h)
            point = self._x - level * math.expm1(r * h) * self._slope
            self._seen[r] = (point - self._denoise(point, level)) / level
        return self._seen[r]


def dpm_fast(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float) -> Iterator[Step]:
    """n calls spent on steps of order 3 and a rest, evenly long in lambda: arXiv:2206.00927, section 3.4.

    As crowsonkb/k-diffusion ``k_diffusion/sampling.py`` (dpm_solver_fast): n // 3 + 1 steps from the first level to the
    last one above 0, where it ends.
    """
    high, low, calls = sigmas[0], _last_positive(sigmas), len(sigmas) - 1
    if low >= high:
        yield _at_once(denoise, x, high)
        return
    count = calls // 3 + 1
    orders = [3] * (count - 2) + [2, 1] if calls % 3 == 0 else [3] * (count - 1) + [calls % 3]
    levels = [high * (low / high) ** (i / count) for i in range(count)] + [low]
    for order, (sigma, lower) in zip(orders, pairwise(levels), strict=True):
        solver = Solver(denoise, x, sigma)
        down, up = _split(sigma, lower, low, eta)
        x = (solver.first, solver.second, solver.third)[order - 1](down)
        if up > 0:
            x = x + noise(sigma, lower) * up
        yield Step(x, solver.denoised, sigma)


def dpm_adaptive(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float
) -> Iterator[Step]:
    """Order 3, checked against order 2 and taken again shorter when they differ: arXiv:2206.00927, section 3.4.

    Tolerances and step control as crowsonkb/k-diffusion ``k_diffusion/sampling.py`` (dpm_solver_adaptive).  3 calls a
    try; it goes from the first level to the last one above 0, in as many steps as that takes.  One step length serves
    all pictures it is given.  A refused try is a step that leaves the latent where it was.
    """
    sigma, low = sigmas[0], _last_positive(sigmas)
    if low >= sigma:
        yield _at_once(denoise, x, sigma)
        return
    h, order = FIRST_STEP, 1.5 if eta else 3.0
    before = x
    while math.log(sigma / low) > 1e-5:
        level, lower = sigma, max(low, sigma * math.exp(-h))
        solver = Solver(denoise, x, sigma)
        down, up = _split(sigma, lower, low, eta)
        rough, fine = solver.second(down, 1 / 3), solver.third(down)
        allowed = (RELATIVE_TOLERANCE * rough.abs().maximum(before.abs())).clamp(min=ABSOLUTE_TOLERANCE)
        error = float(((rough - fine) / allowed).square().mean().sqrt())
        factor = 1.0 + math.atan((1.0 / (error + 1e-8)) ** (1.0 / order) - 1.0)
        h *= factor
        if factor >= ACCEPTED:
            before, x, sigma = rough, fine, lower
            if up > 0:
                x = x + noise(level, lower) * up
        yield Step(x, solver.denoised, level)


def _last_positive(sigmas: Sequence[float]) -> float:
    return sigmas[-1] if sigmas[-1] > 0 else sigmas[-2]


def _at_once(denoise: Denoise, x: Tensor, sigma: float) -> Step:
    """The only step of a walk with a single level above 0."""
    denoised = denoise(x, sigma)
    return Step(denoised, denoised, sigma)


def _split(sigma: float, lower: float, low: float, eta: float) -> tuple[float, float]:
    """As ``ancestral_split``, but never below the last level ``low``."""
    down = max(low, ancestral_split(sigma, lower, eta)[0])
    return down, math.sqrt(max(lower**2 - down**2, 0.0))


@hookimpl
def register_samplers() -> list[Sampler]:
    """DPM fast, DPM adaptive."""
    return [
        Sampler(
            name="DPM fast",
            integrate=dpm_fast,
            aliases=("k_dpm_fast",),
            default_eta=1.0,
            plans_levels=True,
            ignores_schedule=True,
            scales_noise=True,
        ),
        Sampler(
            name="DPM adaptive",
            integrate=dpm_adaptive,
            aliases=("k_dpm_ad",),
            default_eta=1.0,
            calls_per_step=3,
            one_by_one=True,
            plans_levels=True,
            ignores_schedule=True,
        ),
    ]
