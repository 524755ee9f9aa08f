"""Chung et al. 2024 (arXiv:2406.08070), algorithm 2, in the variance-preserving terms of the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from guidance_loaded import PLUGINS
from torch import Tensor

SIGMAS = (14.6, 7.0, 3.1, 1.4, 0.6, 0.0)
X = torch.randn((1, 4, 4, 4), generator=torch.Generator().manual_seed(8), dtype=torch.float64) * SIGMAS[0]
NAMES = ("Euler CFG++", "Euler a CFG++", "DPM++ 2M CFG++")


def cond(x: Tensor, sigma: float) -> Tensor:
    return x / (1 + sigma**2) + 0.3


def uncond(x: Tensor, sigma: float) -> Tensor:
    return x * 0.25 / (0.25 + sigma**2)


class Guided:
    """A denoiser with a guidance of strength ``scale``."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self.guided_and_unguided(x, sigma)[0]

    def guided_and_unguided(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        without = uncond(x, sigma)
        return without + self.scale * (cond(x, sigma) - without), without


def noise(sigma: float, lower: float) -> Tensor:
    return torch.full_like(X, 0.1 * sigma)


def walked(name: str, denoise: object, eta: float = 0.0, sigmas: Sequence[float] = SIGMAS) -> Tensor:
    *_, last = PLUGINS.samplers[name].integrate(denoise, X, sigmas, noise, eta=eta)
    return last.x


@pytest.mark.parametrize("scale", [0.0, 0.6, 1.0])
def test_euler_is_algorithm_2(scale: float) -> None:
    """x_{t-1} = sqrt(a_{t-1}) * guided x0 + sqrt(1 - a_{t-1}) * eps without the prompt."""
    alphas = [1 / (1 + sigma**2) for sigma in SIGMAS]
    x = X * math.sqrt(alphas[0])
    for a, a_next in pairwise(alphas):
        sigma = math.sqrt((1 - a) / a)
        eps = {
            name: (x - math.sqrt(a) * clean(x / math.sqrt(a), sigma)) / math.sqrt(1 - a)
            for name, clean in (("cond", cond), ("uncond", uncond))
        }
        eps_guided = eps["uncond"] + scale * (eps["cond"] - eps["uncond"])
        x0 = (x - math.sqrt(1 - a) * eps_guided) / math.sqrt(a)
        x = math.sqrt(a_next) * x0 + math.sqrt(1 - a_next) * eps["uncond"]
    assert torch.allclose(walked("Euler CFG++", Guided(scale)), x, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "plain", "eta"),
    [
        ("Euler CFG++", "Euler", 0.0),
        ("Euler a CFG++", "Euler a", 1.0),
        ("Euler a CFG++", "Euler a", 0.5),
        ("DPM++ 2M CFG++", "DPM++ 2M", 0.0),
    ],
)
def test_without_guidance_they_are_the_samplers_they_are_named_after(name: str, plain: str, eta: float) -> None:
    assert torch.allclose(walked(name, cond, eta), walked(plain, cond, eta), atol=1e-9)
    assert torch.allclose(walked(name, Guided(0.0), eta), walked(plain, uncond, eta), atol=1e-9)


def test_euler_a_adds_the_noise_that_it_takes_away() -> None:
    sigma, lower = 5.0, 2.0
    up = min(lower, math.sqrt(lower**2 * (sigma**2 - lower**2) / sigma**2))
    down = math.sqrt(lower**2 - up**2)
    guided, without = Guided(0.6).guided_and_unguided(X, sigma)
    expected = guided + down * (X - without) / sigma + up * noise(sigma, lower)
    assert torch.allclose(walked("Euler a CFG++", Guided(0.6), 1.0, (sigma, lower)), expected, atol=1e-9)


def test_dpmpp_2m_by_its_exponential_integrator() -> None:
    """Two steps: the integral of e^lambda times a line through two answers, Lu et al. 2022 (arXiv:2211.01095).

    The line is guided now and starts from the answer without the prompt before; the noise is that without the prompt.
    """
    first, second, third = 8.0, 3.0, 1.5
    denoise = Guided(0.6)
    guided, without = denoise.guided_and_unguided(X, first)
    x = guided + second * (X - without) / first
    guided_2, without_2 = denoise.guided_and_unguided(x, second)
    h_before, h = math.log(first / second), math.log(second / third)
    slope = (guided_2 - without) / h_before
    noise_now = (x - without_2) / second
    expected = guided_2 + third * noise_now + slope * (h / 2) * (1 - third / second)
    assert torch.allclose(walked("DPM++ 2M CFG++", denoise, 0.0, (first, second, third)), expected, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_scale_of_the_usual_size_is_divided(name: str) -> None:
    assert PLUGINS.samplers[name].cfg_divisor == PLUGINS.samplers["DDIM CFG++"].cfg_divisor == 12.5


@pytest.mark.parametrize("name", NAMES)
def test_the_last_step_ends_on_the_guided_latent(name: str) -> None:
    steps = list(PLUGINS.samplers[name].integrate(Guided(0.6), X, SIGMAS, noise, eta=0.0))
    assert len(steps) == len(SIGMAS) - 1
    assert torch.allclose(steps[-1].x, steps[-1].denoised, atol=1e-12)
