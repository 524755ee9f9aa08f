"""Samplers that k-diffusion does not have: against their published formulas, diffusers, and hand-made cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from webui.diffusion.schedules import DistilledTable, NoiseTable, karras, timestep_grid, uniform
from webui.samplers import StepOptions
from webui.samplers.multistep import deis_weights, ipndm_v_weights, ipndm_weights, lms_weights
from webui.samplers.restart import planned

TABLE = NoiseTable.scaled_linear()


def toy(x: Tensor, sigma: float) -> Tensor:
    return torch.tanh(x / math.sqrt(sigma**2 + 1) + 0.1) * 0.8


@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_equals_diffusers(named, generator, order: int) -> None:
    import diffusers  # takes seconds: only where it is needed

    theirs = diffusers.UniPCMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", solver_order=order, solver_type="bh1",
        use_karras_sigmas=True, final_sigmas_type="zero",
    )  # fmt: skip
    theirs.set_timesteps(10)
    x = torch.randn((1, 4, 3, 5), generator=generator, dtype=torch.float64)
    sigmas = theirs.sigmas.double().tolist()
    start = x * math.sqrt(1 + sigmas[0] ** 2)
    for sigma, t in zip(sigmas, theirs.timesteps, strict=False):
        latent = x * math.sqrt(1 + sigma**2)
        x = theirs.step((latent - toy(latent, sigma)) / sigma, t, x).prev_sample
    *_, last = named("UniPC").formula(StepOptions(order=order))(toy, start, sigmas, None, eta=0.0)
    torch.testing.assert_close(last.x, toy(latent, sigma), rtol=0, atol=1e-5)  # its own step to 0 is not a number


LEVELS = [4.0, 5.5, 6.1, 9.0]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_lms_weights_integrate_polynomials_exactly(count: int) -> None:
    weights = lms_weights(LEVELS[:count], 2.5)
    for power in range(count):
        integral = (2.5 ** (power + 1) - 4.0 ** (power + 1)) / (power + 1)
        moment = sum(w * level**power for w, level in zip(weights, LEVELS, strict=False))
        assert moment == pytest.approx(integral, rel=1e-12)


def test_on_even_steps_all_adams_bashforth_weights_are_the_same() -> None:
    for count in (1, 2, 3, 4):
        levels = [4.0 + k for k in range(count)]
        assert lms_weights(levels, 3.0) == pytest.approx(ipndm_weights(levels, 3.0))
        assert count == 4 or ipndm_v_weights(levels, 3.0) == pytest.approx(ipndm_weights(levels, 3.0))
    assert sum(ipndm_v_weights(levels, 3.0)) == pytest.approx(-1)
    assert ipndm_v_weights(LEVELS[:2], 2.5) == pytest.approx(lms_weights(LEVELS[:2], 2.5))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_deis_weights_are_the_integrals_of_diff_sampler(count: int) -> None:
    difference = 2 * (math.log(0.002**2 + 1) / 1e-3 - math.log(80.0**2 + 1)) / (1e-3 - 1)
    first = math.log(80.0**2 + 1) - 0.5 * difference

    def time(sigma: float) -> float:
        return (math.sqrt(first**2 + 2 * difference * math.log(sigma**2 + 1)) - first) / difference

    t = np.linspace(time(4.0), time(2.5), 200_001)
    sigma = np.sqrt(np.expm1(0.5 * difference * t**2 + first * t))
    nodes = [time(level) for level in LEVELS[:count]]
    middle = (t[1:] + t[:-1]) / 2
    for j, weight in enumerate(deis_weights(LEVELS[:count], 2.5)):
        others = [node for k, node in enumerate(nodes) if k != j]
        basis = np.prod([(middle - node) / (nodes[j] - node) for node in others], axis=0)
        assert weight == pytest.approx(float(np.sum(basis * np.diff(sigma))), rel=1e-8)


def test_lcm_jumps_to_the_clean_latent_and_adds_the_next_level(named, generator) -> None:
    draws = torch.randn((3, 1, 4, 2, 2), generator=generator)
    pending = iter(draws[1:])
    sigmas = [14.6, 3.0, 0.5, 0.0]
    steps = list(named("LCM").integrate(toy, draws[0] * 14.6, sigmas, lambda a, b: next(pending), eta=0.0))
    x = draws[0] * 14.6
    for index, (sigma, lower) in enumerate(itertools.pairwise(sigmas)):
        x = toy(x, sigma) + (lower * draws[1 + index] if lower else 0)
        torch.testing.assert_close(steps[index].x, x)
    assert isinstance(named("LCM").table(TABLE), DistilledTable)


class Guided:
    """Two different answers; only a sampler that asks for both sees the second."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return toy(x, sigma)

    def guided_and_unguided(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        return toy(x, sigma), 0.5 * toy(x, sigma) - 0.1


@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim_cfgpp_renoises_with_the_unguided_noise(named, generator, eta: float) -> None:
    sigmas = timestep_grid(TABLE, 8)
    draws = torch.randn((10, 1, 4, 2, 2), generator=generator, dtype=torch.float64)
    pending, x = iter(draws[1:]), draws[0]
    start = x * math.sqrt(1 + sigmas[0] ** 2)
    for index, (sigma, lower) in enumerate(itertools.pairwise(sigmas)):
        a, after = 1 / (1 + sigma**2), 1 / (1 + lower**2)
        clean, unguided = Guided().guided_and_unguided(x / math.sqrt(a), sigma)
        seen = (x - math.sqrt(a) * unguided) / math.sqrt(1 - a)
        s = eta * math.sqrt((1 - after) / (1 - a) * (1 - a / after))
        x = math.sqrt(after) * clean + math.sqrt(1 - after - s**2) * seen + s * draws[1 + index]
    *_, last = named("DDIM CFG++").integrate(Guided(), start, sigmas, lambda a, b: next(pending), eta=eta)
    torch.testing.assert_close(last.x, x, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("steps", "times", "length"), [(19, 0, 0), (20, 1, 9), (35, 1, 9), (36, 2, 9), (50, 2, 12)])
def test_restart_goes_up_again_as_often_as_its_steps_allow(steps: int, times: int, length: int) -> None:
    walk = planned(karras(TABLE, steps))
    assert len(walk) == steps
    ups = [(before[1], after[0]) for before, after in itertools.pairwise(walk) if after[0] > before[1]]
    assert len(ups) == times
    for low, high in ups:
        assert low == pytest.approx(0.1, rel=0.5) and high == pytest.approx(2.0, rel=0.5)
    assert walk[0][0] == pytest.approx(TABLE.sigma_max) and walk[-1][1] == 0.0
    assert len({step for step in walk if walk.count(step) == max(times, 1)}) >= length


@pytest.mark.parametrize("steps", [24, 60])
def test_restart_keeps_the_variance_of_the_data(named, gaussian, steps: int) -> None:
    """Heun between the restarts leaves its own small error; without the fresh noise the variance would collapse."""
    sigmas = uniform(TABLE, steps)
    units = iter(torch.eye(4, dtype=torch.float64)[:, None, :, None, None])
    start = math.hypot(sigmas[0], gaussian.width) * next(units)
    *_, last = named("Restart").integrate(gaussian, start, sigmas, lambda a, b: next(units), eta=0.0)
    assert float((last.x**2).sum()) == pytest.approx(gaussian.width**2, rel=0.1)


def test_dpm_solvers_with_a_single_level_show_its_clean_latent(named) -> None:
    x = torch.full((1, 4, 2, 2), 2.0)
    for name in ("DPM fast", "DPM adaptive"):
        (step,) = named(name).integrate(toy, x, [3.0, 0.0], None, eta=1.0)
        torch.testing.assert_close(step.x, toy(x, 3.0))
