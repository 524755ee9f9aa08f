"""Against crowsonkb/k-diffusion in float64, on a denoiser that is not linear."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from webui.diffusion.schedules import NoiseTable, exponential, karras, uniform


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
    draws = torch.randn((12, *shape), generator=generator, dtype=torch.float64)

    def replay():
        pending = iter(draws)
        return lambda sigma, lower: next(pending)

    options = {"eta": eta, "noise_sampler": replay()} if sampler.default_eta is not None else {}
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
