"""UniPC: a multistep predictor whose corrector uses the model call that the next step needs anyway."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from webui.diffusion.schedules import NoiseTable, timestep_grid
from webui.hooks import hookimpl
from webui.samplers import DEFAULTS, Denoise, NoiseSource, Sampler, Step, StepOptions
from webui.samplers.ddim import ending_variance_preserving

if TYPE_CHECKING:
    from torch import Tensor


def unipc(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float,
    options: StepOptions = DEFAULTS,
) -> Iterator[Step]:
    """Zhao et al. 2023 (arXiv:2302.04867), algorithms 5 to 8, B(h) = h, on clean latents.  n calls.

    The order grows from 1 to ``options.order`` and falls to 1 at the end; the last step is not corrected.  The last
    latent is the variance-preserving one, as DDIM's.  As AUTOMATIC1111 ``modules/models/diffusion/uni_pc/uni_pc.py``.
    """
    yield from ending_variance_preserving(_steps(denoise, x, sigmas, options.order), sigmas)


def _steps(denoise: Denoise, x: Tensor, sigmas: Sequence[float], highest: int) -> Iterator[Step]:
    count = len(sigmas) - 1
    seen = [denoise(x, sigmas[0])]
    for index in range(count):
        sigma, lower, denoised = sigmas[index], sigmas[index + 1], seen[0]
        if lower <= 0:
            yield Step(denoised, denoised, sigma)
            return
        order = min(highest, index + 1, count - index)
        h = math.log(sigma / lower)
        ratios = [math.log(sigma / sigmas[index - k]) / h for k in range(1, order)]
        bends = [(seen[k] - denoised) / ratios[k - 1] for k in range(1, order)]
        base = (lower / sigma) * x - math.expm1(-h) * denoised
        x = base + h * _weighted(_predictor(ratios, h), bends, denoised)
        if index + 1 < count:
            answer = denoise(x, lower)
            bends.append(answer - denoised)
            x = base + h * _weighted(_corrector(ratios, h), bends, denoised)
            seen = [answer, *seen[: highest - 1]]
        yield Step(x, denoised, sigma)


def _weighted(weights: Sequence[float], bends: Sequence[Tensor], like: Tensor) -> Tensor:
    return sum((weight * bend for weight, bend in zip(weights, bends, strict=True)), 0.0 * like)


def _predictor(ratios: Sequence[float], h: float) -> list[float]:
    """Weights of the differences before; the paper takes 1/2 for one of them instead of solving for it."""
    return [0.5] if len(ratios) == 1 else _solved(ratios, h)


def _corrector(ratios: Sequence[float], h: float) -> list[float]:
    """The same with the difference at the end of the step, whose ratio is 1."""
    return [0.5] if not ratios else _solved([*ratios, 1.0], h)


def _solved(ratios: Sequence[float], h: float) -> list[float]:
    """The rho of equation 8: sum(rho * ratio**(k - 1)) = k! * phi_{k+1}(-h) * -h / B(-h) for each k."""
    values, phi = [], math.expm1(-h) / -h - 1.0
    for k in range(1, len(ratios) + 1):
        values.append(phi * math.factorial(k) / -h)
        phi = phi / -h - 1.0 / math.factorial(k + 1)
    powers = np.array([[ratio**k for ratio in ratios] for k in range(len(ratios))])
    return [float(weight) for weight in np.linalg.solve(powers, values)] if ratios else []


def evenly_to_zero(table: NoiseTable, grid: list[float], whole: bool) -> list[float]:
    """As many steps as ``grid`` has levels, evenly spaced in time from its first one to timestep 0.

    From pure noise (``whole``) the first is the last timestep.  As AUTOMATIC1111's
    ``modules/sd_samplers_timesteps_impl.py`` (unipc) with ``time_uniform``; between timesteps ln(alpha) is linear.
    """
    start = len(table.sigmas) - 1.0 if whole else table.timestep(grid[0])
    at = np.linspace(start, 0.0, len(grid) + 1)
    log_alphas = np.interp(at, np.arange(len(table.sigmas)), np.log(table.alphas_cumprod))
    return [float(sigma) for sigma in np.sqrt(np.expm1(-log_alphas))]


BUILT_IN: tuple[Sampler, ...] = (
    Sampler(
        name="UniPC",
        integrate=unipc,
        aliases=("unipc",),
        grid=timestep_grid,
        respaced=evenly_to_zero,
        tuned=lambda options: partial(unipc, options=options),
    ),
)


@hookimpl
def register_samplers() -> list[Sampler]:
    """UniPC."""
    return list(BUILT_IN)
