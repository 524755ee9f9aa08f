"""Multistep methods on sigmas: the slope of a step is extrapolated from the slopes before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from webui.hooks import hookimpl
from webui.samplers import Denoise, NoiseSource, Sampler, Step
from webui.samplers.plms import ADAMS_BASHFORTH

if TYPE_CHECKING:
    from torch import Tensor

Weights = Callable[[Sequence[float], float], Sequence[float]]
"""(levels of the slopes at hand, newest first; the next level) -> what each slope is multiplied by."""


def multistep(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float,
    weights: Weights,
    depth: int = 4,
) -> Iterator[Step]:
    """x plus the weighted sum of the last ``depth`` slopes (x - denoised) / sigma.  n calls.

    Each step shows the clean latent that the sum points to, which the latent becomes when the walk ends in 0.
    """
    slopes: list[Tensor] = []
    for index, (sigma, lower) in enumerate(pairwise(sigmas)):
        slopes = [(x - denoise(x, sigma)) / sigma, *slopes[: depth - 1]]
        levels = sigmas[max(index - depth + 1, 0) : index + 1][::-1]
        change = sum((w * s for w, s in zip(weights(levels, lower), slopes, strict=True)), 0.0 * slopes[0])
        denoised = x + change * (sigma / (sigma - lower))
        x = x + change
        yield Step(x, denoised, sigma)


def lms_weights(levels: Sequence[float], lower: float) -> list[float]:
    """Integrals from ``levels[0]`` to ``lower`` of the Lagrange polynomials through ``levels`` (Adams-Bashforth).

    Two-point Gauss quadrature, exact for the cubics that four levels give.  As crowsonkb/k-diffusion
    ``k_diffusion/sampling.py`` (linear_multistep_coeff).
    """
    half, middle = (lower - levels[0]) / 2, (lower + levels[0]) / 2
    points = (middle - half / math.sqrt(3), middle + half / math.sqrt(3))
    return [half * sum(_lagrange(levels, j, point) for point in points) for j in range(len(levels))]


def _lagrange(nodes: Sequence[float], j: int, at: float) -> float:
    """The polynomial that is 1 at ``nodes[j]`` and 0 at the others."""
    return math.prod((at - node) / (nodes[j] - node) for k, node in enumerate(nodes) if k != j)


def ipndm_weights(levels: Sequence[float], lower: float) -> list[float]:
    """Adams-Bashforth for even steps, whatever the steps are: Zhang & Chen 2022 (arXiv:2204.13902), iPNDM."""
    return [(lower - levels[0]) * weight for weight in ADAMS_BASHFORTH.get(len(levels), (1.0,))]


def ipndm_v_weights(levels: Sequence[float], lower: float) -> list[float]:
    """Adams-Bashforth for uneven steps, as zju-pi/diff-sampler ``diff-solvers-main/solvers.py`` (ipndm_v) has it.

    Forge's pictures come from that program, which from the third slope on differs from the integrals of
    :func:`lms_weights` in a pair of parentheses, with four slopes also in a sign and in the ratio of the oldest weight;
    so do these.  Two slopes are exact, and so are three on even steps.
    """
    h = lower - levels[0]
    steps = [newer - older for newer, older in pairwise(levels)]
    if not steps:
        return [h]
    a, rest = steps[0], steps[1:]
    half = h / a / 2
    weights = [1 + half, -half]
    if rest:
        b = rest[0]
        cubic = (1 - h / (3 * (h + a)) * (h * (h + a)) / (a * (a + b))) / 2
        weights = [1 + half + cubic, -half - (1 + a / b) * cubic, cubic * a / b]
    if len(rest) > 1:
        b, c = rest
        ratio = a * (a + b) / (b * (b + c))
        quartic = (1 - h / (3 * (h + a))) / 2 + (1 - h / (2 * (h + a))) * h / (6 * (h + a + b))
        quartic *= h * (h + a) * (h + a + b) / (a * (a + b) * (a + b + c))
        weights = [
            weights[0] + quartic,
            weights[1] - (1 + a / b + ratio) * quartic,
            weights[2] + (a / b + ratio * (1 + b / c)) * quartic,
            -quartic * ratio * a / b,
        ]
    return [h * weight for weight in weights]


DEIS_BETA_DIFFERENCE = 2 * (math.log(0.002**2 + 1) / 1e-3 - math.log(80.0**2 + 1)) / (1e-3 - 1)
DEIS_BETA_FIRST = math.log(80.0**2 + 1) - DEIS_BETA_DIFFERENCE / 2
"""The variance-preserving process whose sigma is 0.002 at time 0.001 and 80 at time 1."""
GAUSS_POINTS, GAUSS_WEIGHTS = np.polynomial.legendre.leggauss(12)


def deis_weights(levels: Sequence[float], lower: float) -> list[float]:
    """Slopes extrapolated in the time of a linear process instead of sigma: arXiv:2204.13902, equation 15 (tAB-DEIS).

    The time is that of zju-pi/diff-sampler ``gits-main/solver_utils.py`` (edm2t), which Forge uses; the integrals are
    Gauss quadrature here, a sum over 10,000 points there.  A step to 0 is Euler's.
    """
    if lower <= 0:
        return [lower - levels[0], *(0.0 for _ in levels[1:])]
    times = [_deis_time(level) for level in levels]
    half, middle = (_deis_time(lower) - times[0]) / 2, (_deis_time(lower) + times[0]) / 2
    points = middle + half * GAUSS_POINTS
    rate = DEIS_BETA_DIFFERENCE * points + DEIS_BETA_FIRST
    exponent = DEIS_BETA_DIFFERENCE * points**2 / 2 + DEIS_BETA_FIRST * points
    change = half * GAUSS_WEIGHTS * rate * np.exp(exponent) / (2 * np.sqrt(np.expm1(exponent)))
    return [float(sum(change * [_lagrange(times, j, float(point)) for point in points])) for j in range(len(times))]


def _deis_time(sigma: float) -> float:
    root = math.sqrt(DEIS_BETA_FIRST**2 + 2 * DEIS_BETA_DIFFERENCE * math.log(sigma**2 + 1))
    return (root - DEIS_BETA_FIRST) / DEIS_BETA_DIFFERENCE


BUILT_IN: tuple[Sampler, ...] = (
    Sampler(name="LMS", integrate=partial(multistep, weights=lms_weights), aliases=("k_lms",)),
    Sampler(name="IPNDM", integrate=partial(multistep, weights=ipndm_weights), aliases=("ipndm",)),
    Sampler(name="IPNDM_V", integrate=partial(multistep, weights=ipndm_v_weights), aliases=("ipndm_v",)),
    Sampler(name="DEIS", integrate=partial(multistep, weights=deis_weights, depth=3), aliases=("deis",)),
)


@hookimpl
def register_samplers() -> list[Sampler]:
    """LMS, IPNDM, IPNDM_V, DEIS."""
    return list(BUILT_IN)
