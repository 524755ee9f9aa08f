"""Against crowsonkb/k-diffusion in float64, on a denoiser that is not linear."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from webui.diffusion.schedules import NoiseTable, exponential, karras, uniform
from webui.samplers import StepOptions


def toy(x: Tensor, sigma: float | Tensor) -> Tensor:
    sigma = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1, 1, 1)
    return torch.tanh(x / (sigma**2 + 1).sqrt() + 0.1) * 0.8


@pytest.mark.parametrize(
    ("name", "function", "eta"),
    [
        ("Euler", "sample_euler", 0.0),
        ("Euler a", "sample_euler_ancestral", 0.0),
        ("Euler a", "sample_euler_ancestral", 0.6),
        ("Euler a", "sample_euler_ancestral", 1.0),
        ("Heun", "sample_heun", 0.0),
        ("DPM++ 2M", "sample_dpmpp_2m", 0.0),
        ("LMS", "sample_lms", 0.0),
        ("DPM2", "sample_dpm_2", 0.0),
        ("DPM2 a", "sample_dpm_2_ancestral", 0.7),
        ("DPM++ 2S a", "sample_dpmpp_2s_ancestral", 1.0),
        ("DPM++ SDE", "sample_dpmpp_sde", 1.0),
        ("DPM++ SDE", "sample_dpmpp_sde", 0.4),
        ("DPM++ 2M SDE", "sample_dpmpp_2m_sde", 1.0),
        ("DPM++ 2M SDE", "sample_dpmpp_2m_sde", 0.3),
        ("DPM++ 2M SDE Heun", "sample_dpmpp_2m_sde", 1.0),
        ("DPM++ 3M SDE", "sample_dpmpp_3m_sde", 1.0),
        ("DPM++ 3M SDE", "sample_dpmpp_3m_sde", 0.0),
    ],
)
@pytest.mark.parametrize("schedule", [karras, uniform, exponential], ids=lambda function: function.__name__)
def test_equals_k_diffusion(
    named, walk, k_diffusion, generator, name: str, function: str, eta: float, schedule
) -> None:
    sampler = named(name)
    sigmas = schedule(NoiseTable.scaled_linear(), 12)
    shape = (2, 4, 3, 5)
    start = sigmas[0] * torch.randn(shape, generator=generator, dtype=torch.float64)
    draws = torch.randn((24, *shape), generator=generator, dtype=torch.float64)

    def replay():
        pending = iter(draws)
        return lambda sigma, lower: next(pending)

    options = {"eta": eta, "noise_sampler": replay()} if sampler.default_eta is not None else {}
    if name == "DPM++ 2M SDE Heun":
        options["solver_type"] = "heun"
    levels = torch.tensor(sigmas, dtype=torch.float64)
    expected = getattr(k_diffusion, function)(toy, start, levels, disable=True, **options)
    answer = walk(sampler, toy, start, sigmas, eta=eta, noise=replay())
    torch.testing.assert_close(answer, expected, rtol=1e-12, atol=1e-12)


def test_karras_and_exponential_schedules_equal_k_diffusion(k_diffusion) -> None:
    table = NoiseTable.scaled_linear()
    for ours, theirs in ((karras, k_diffusion.get_sigmas_karras), (exponential, k_diffusion.get_sigmas_exponential)):
        for n in (1, 2, 7, 20, 150):
            expected = theirs(n, table.sigma_min, table.sigma_max)
            torch.testing.assert_close(torch.tensor(ours(table, n)), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize(("name", "function"), [("Euler", "euler"), ("Heun", "heun"), ("DPM2", "dpm_2")])
def test_churn_equals_k_diffusion(named, k_diffusion, generator, name: str, function: str, monkeypatch) -> None:
    sigmas = karras(NoiseTable.scaled_linear(), 12)
    start = sigmas[0] * torch.randn((1, 4, 3, 5), generator=generator, dtype=torch.float64)
    draws = torch.randn((12, *start.shape), generator=generator, dtype=torch.float64)
    theirs, ours = iter(draws), iter(draws)
    monkeypatch.setattr(torch, "randn_like", lambda x: next(theirs))
    options = {"s_churn": 4.0, "s_tmin": 0.05, "s_tmax": 9.0, "s_noise": 1.0}
    levels = torch.tensor(sigmas, dtype=torch.float64)
    expected = getattr(k_diffusion, f"sample_{function}")(toy, start, levels, disable=True, **options)
    formula = named(name).formula(StepOptions(churn=4.0, churn_low=0.05, churn_high=9.0))
    *_, last = formula(toy, start, sigmas, lambda sigma, lower: next(ours), eta=0.0)
    torch.testing.assert_close(last.x, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 9, 20])
def test_dpm_fast_equals_k_diffusion(named, walk, k_diffusion, generator, float64, steps: int, eta: float) -> None:
    sigmas = uniform(NoiseTable.scaled_linear(), max(steps, 2))[-steps - 1 :]
    start = sigmas[0] * torch.randn((2, 4, 3, 5), generator=generator)
    if steps == 1:
        sigmas = [*sigmas[:-1], sigmas[0] / 3]
    low = min(sigma for sigma in sigmas if sigma > 0)
    draws = torch.randn((9, *start.shape), generator=generator)
    theirs, ours = iter(draws), iter(draws)
    expected = k_diffusion.sample_dpm_fast(
        toy, start, low, sigmas[0], steps, disable=True, eta=eta, noise_sampler=lambda a, b: next(theirs)
    )
    answer = walk(named("DPM fast"), toy, start, sigmas, eta=eta, noise=lambda a, b: next(ours))
    torch.testing.assert_close(answer, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_dpm_adaptive_equals_k_diffusion(named, walk, k_diffusion, generator, float64, eta: float) -> None:
    start = 14.6 * torch.randn((2, 4, 3, 5), generator=generator)
    draws = torch.randn((300, *start.shape), generator=generator)
    theirs, ours = iter(draws), iter(draws)
    expected = k_diffusion.sample_dpm_adaptive(
        toy, start, 0.03, 14.6, disable=True, eta=eta, noise_sampler=lambda a, b: next(theirs)
    )
    answer = walk(named("DPM adaptive"), toy, start, [14.6, 1.0, 0.03, 0.0], eta=eta, noise=lambda a, b: next(ours))
    torch.testing.assert_close(answer, expected, rtol=1e-9, atol=1e-9)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
