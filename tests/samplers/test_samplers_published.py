"""DDIM, PLMS and DDPM against their papers' formulas, written out for the variance-preserving latent, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from webui.diffusion.schedules import NoiseTable, timestep_grid, uniform

TABLE = NoiseTable.scaled_linear()


def noise_seen(x: Tensor, a: float) -> Tensor:
    """A toy network's answer for the variance-preserving latent ``x`` at cumulative alpha ``a``."""
    return torch.tanh(1.3 * x + a)


def denoise(x: Tensor, sigma: float) -> Tensor:
    a = 1 / (1 + sigma**2)
    return x - sigma * noise_seen(x * math.sqrt(a), a)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_equals_equation_12(named, generator, eta: float) -> None:
    sampler, sigmas = named("DDIM"), timestep_grid(TABLE, 10)
    draws = torch.randn((11, 1, 4, 3, 5), generator=generator, dtype=torch.float64)
    x, pending = draws[0], iter(draws[1:])
    timesteps = [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]
    for index, (t, lower) in enumerate(itertools.pairwise(timesteps)):
        a, a_next = float(TABLE.alphas_cumprod[t]), float(TABLE.alphas_cumprod[lower])
        e = noise_seen(x, a)
        s = eta * math.sqrt((1 - a_next) / (1 - a)) * math.sqrt(1 - a / a_next)
        clean = (x - math.sqrt(1 - a) * e) / math.sqrt(a)
        x = math.sqrt(a_next) * clean + math.sqrt(1 - a_next - s**2) * e + s * draws[1 + index]
    start = draws[0] * math.sqrt(1 + sigmas[0] ** 2)
    *_, last = sampler.integrate(denoise, start, sigmas, lambda sigma, lower: next(pending), eta=eta)
    torch.testing.assert_close(last.x, x, rtol=1e-11, atol=1e-11)


def test_plms_equals_its_paper(named, generator) -> None:
    sampler, sigmas = named("PLMS"), timestep_grid(TABLE, 10)
    x = first = torch.randn((1, 4, 3, 5), generator=generator, dtype=torch.float64)
    timesteps = [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]
    seen: list[Tensor] = []

    def moved(x: Tensor, e: Tensor, a: float, a_next: float) -> Tensor:
        clean = (x - math.sqrt(1 - a) * e) / math.sqrt(a)
        return math.sqrt(a_next) * clean + math.sqrt(1 - a_next) * e

    for t, lower in itertools.pairwise(timesteps):
        a, a_next = float(TABLE.alphas_cumprod[t]), float(TABLE.alphas_cumprod[lower])
        e = noise_seen(x, a)
        if not seen:
            mixed = (e + noise_seen(moved(x, e, a, a_next), a_next)) / 2
        elif len(seen) == 1:
            mixed = (3 * e - seen[-1]) / 2
        elif len(seen) == 2:
            mixed = (23 * e - 16 * seen[-1] + 5 * seen[-2]) / 12
        else:
            mixed = (55 * e - 59 * seen[-1] + 37 * seen[-2] - 9 * seen[-3]) / 24
        seen.append(e)
        x = moved(x, mixed, a, a_next)
    start = first * math.sqrt(1 + sigmas[0] ** 2)
    *_, last = sampler.integrate(denoise, start, sigmas, lambda sigma, lower: torch.empty(0), eta=0.0)
    torch.testing.assert_close(last.x, x, rtol=1e-11, atol=1e-11)


def test_ddpm_equals_its_posterior(named, generator) -> None:
    sampler, sigmas = named("DDPM"), uniform(TABLE, 10)
    draws = torch.randn((10, 1, 4, 3, 5), generator=generator, dtype=torch.float64)
    start, pending = draws[0] * sigmas[0], iter(draws[1:])
    x = start
    for index, (sigma, lower) in enumerate(itertools.pairwise(sigmas)):
        a, a_next = 1 / (1 + sigma**2), 1 / (1 + lower**2)
        alpha, x = a / a_next, x * math.sqrt(a)
        x = (x - (1 - alpha) / math.sqrt(1 - a) * noise_seen(x, a)) / math.sqrt(alpha)
        if lower > 0:
            x = x + math.sqrt((1 - alpha) * (1 - a_next) / (1 - a)) * draws[1 + index]
        x = x / math.sqrt(a_next)
    *_, last = sampler.integrate(denoise, start, sigmas, lambda sigma, lower: next(pending), eta=1.0)
    torch.testing.assert_close(last.x, x, rtol=1e-11, atol=1e-11)


def test_ddim_grid_is_the_timesteps_of_automatic1111() -> None:
    assert [TABLE.timestep(sigma) for sigma in timestep_grid(TABLE, 4)] == [751, 501, 251, 1]
    assert [TABLE.timestep(sigma) for sigma in timestep_grid(TABLE, 6)] == [997, 831, 665, 499, 333, 167, 1]
    assert [TABLE.timestep(sigma) for sigma in timestep_grid(TABLE, 1)] == [999, 1]
