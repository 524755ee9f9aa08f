"""Every registered sampler on Gaussian data, where the exact answer is known: no weights, no other program."""

from __future__ import annotations

import math

import pytest
import torch

from webui.diffusion.schedules import NoiseTable, karras
from webui.samplers import Sampler

ORDERS = {
    "Euler": 1, "Euler a": 1, "DDIM": 1, "DDIM CFG++": 1, "DDPM": 1, "HeunPP2": 1,
    "Heun": 2, "DPM2": 2, "DPM2 a": 2, "DPM++ 2M": 2, "DPM++ 2S a": 2, "DPM++ SDE": 2, "DPM++ 2M SDE": 2,
    "DPM++ 2M SDE Heun": 2, "PLMS": 2, "IPNDM": 2, "DPM++ 3M SDE": 2, "UniPC": 2,
}  # fmt: skip
"""Orders of accuracy by their papers, on sigmas that are not evenly spaced; a sampler not named here must reach 1.

Multistep methods begin with a step of first order, which is why those of third order are not better than 2 in the end.
"""
CALLS = {"HeunPP2": 27, "DPM fast": 10}
"""Model calls of a walk of 10 steps that does not end in 0, where they are no multiple of the steps."""


def smooth_grid(n: int, high: float = 10.0, low: float = 0.05, rho: float = 7.0) -> list[float]:
    return [(high ** (1 / rho) + i / n * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n + 1)]


def test_every_sampler_follows_the_exact_path(ode_sampler: Sampler, gaussian, walk, generator) -> None:
    x = 10.0 * torch.randn((2, 4, 3, 5), generator=generator, dtype=torch.float64)
    sigmas = smooth_grid(1000)
    answer = walk(ode_sampler, gaussian, x, sigmas)
    tolerance = 0.05 if ode_sampler.name == "DPM adaptive" else 0.01  # its own tolerance is 5 % a step
    torch.testing.assert_close(answer, gaussian.path(x, sigmas[0], sigmas[-1]), rtol=tolerance, atol=0)


def test_twice_the_steps_divide_the_error_by_two_to_the_order(ode_sampler: Sampler, gaussian, walk) -> None:
    if ode_sampler.plans_levels:
        pytest.skip("DPM adaptive keeps to a tolerance, and the order of DPM fast's last step depends on n modulo 3")
    x = torch.ones((1, 1, 1, 1), dtype=torch.float64)

    def error(n: int) -> float:
        sigmas = smooth_grid(n)
        return float((walk(ode_sampler, gaussian, x, sigmas) - gaussian.path(x, sigmas[0], sigmas[-1])).abs())

    measured = math.log2(error(200) / error(400))
    assert measured == pytest.approx(ORDERS.get(ode_sampler.name, measured), abs=0.1)
    assert measured > 0.9


def test_on_evenly_spaced_sigmas_plms_is_of_third_order_or_better(named, gaussian, walk) -> None:
    x = torch.ones((1, 1, 1, 1), dtype=torch.float64)

    def error(n: int) -> float:
        sigmas = [3.0 - 2.5 * i / n for i in range(n + 1)]
        return float((walk(named("PLMS"), gaussian, x, sigmas) - gaussian.path(x, 3.0, 0.5)).abs())

    assert math.log2(error(100) / error(200)) > 2.9  # its own order is 4, that of its first two steps 3


def final_shares(sampler: Sampler, denoise, walk, sigmas: list[float], deviation: float) -> torch.Tensor:
    """How much of the start (first) and of each noise draw is in the final latent.

    The denoiser is linear, so channels can stand for independent random numbers: the sum of the squares is the variance
    over infinitely many samples, without a single one.
    """
    units = iter(torch.eye(2 * len(sigmas), dtype=torch.float64)[:, None, :, None, None])
    start = deviation * next(units)
    return walk(sampler, denoise, start, sigmas, eta=1.0, noise=lambda sigma, lower: next(units)).flatten()


def test_added_noise_keeps_the_variance_of_the_data(stochastic_sampler: Sampler, gaussian, walk) -> None:
    if stochastic_sampler.name == "DPM adaptive":
        pytest.skip("it takes a handful of steps, as many as its tolerance wants")

    def error(n: int) -> float:
        sigmas = smooth_grid(n)
        shares = final_shares(stochastic_sampler, gaussian, walk, sigmas, math.hypot(sigmas[0], gaussian.width))
        assert abs(shares[0]) < 0.1 * float(shares.norm())  # the start is all but forgotten
        return abs(float((shares**2).sum()) / (sigmas[-1] ** 2 + gaussian.width**2) - 1)

    assert error(400) < 0.015
    assert stochastic_sampler.plans_levels or math.log2(error(200) / error(400)) > 0.9


def test_a_walk_to_zero_ends_in_the_last_clean_latent(sampler: Sampler, gaussian) -> None:
    if sampler.ignores_schedule:
        pytest.skip("it ends at the last level above 0")
    table = NoiseTable.scaled_linear()
    x = torch.full((1, 4, 2, 2), 3.0)
    last = list(sampler.integrate(gaussian, x, karras(table, 8), lambda sigma, lower: torch.zeros_like(x), eta=1.0))[-1]
    torch.testing.assert_close(last.x, last.denoised)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_give_finite_latents(sampler: Sampler, gaussian, steps: int) -> None:
    table = NoiseTable.scaled_linear()
    sigmas = sampler.grid(table, steps) if sampler.grid else karras(table, steps)
    x = torch.full((1, 4, 2, 2), sigmas[0])
    walked = list(sampler.integrate(gaussian, x, sigmas, lambda sigma, lower: torch.ones_like(x), eta=1.0))
    assert walked and all(bool(step.x.isfinite().all() and step.denoised.isfinite().all()) for step in walked)


def test_model_calls_are_as_many_as_the_sampler_says(sampler: Sampler, gaussian) -> None:
    calls: list[float] = []

    def counting(x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(sigma)
        return gaussian(x, sigma)

    x = torch.ones((1, 1, 2, 2))
    sigmas = smooth_grid(10)
    steps = 0
    for steps, _ in enumerate(sampler.integrate(counting, x, sigmas, lambda a, b: x, eta=1.0), start=1):
        most = 3 if sampler.plans_levels else sampler.calls_per_step
        assert steps <= len(calls) <= steps * most + 1  # each step is computed when asked for
    expected = 3 * steps if sampler.name == "DPM adaptive" else CALLS.get(sampler.name, 10 * sampler.calls_per_step)
    assert len(calls) - expected in (0, 1)
