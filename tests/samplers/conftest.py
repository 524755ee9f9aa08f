"""The registry of built-in samplers, problems with known answers, and k-diffusion's formulas as an oracle."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

import webui.samplers
from webui.samplers import Sampler


def builtin_samplers() -> list[Sampler]:
    names = [module.name for module in pkgutil.iter_modules(webui.samplers.__path__)]
    modules = [importlib.import_module(f"webui.samplers.{name}") for name in names]
    return [sampler for module in modules for sampler in module.register_samplers()]


SAMPLERS = builtin_samplers()

OFF_THE_PATH = {"LCM", "Restart"}
"""Samplers that leave the path of the probability-flow ODE, with noise that no eta switches off."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    choices = {
        "sampler": SAMPLERS,
        "stochastic_sampler": [sampler for sampler in SAMPLERS if sampler.default_eta is not None],
        "ode_sampler": [sampler for sampler in SAMPLERS if sampler.name not in OFF_THE_PATH],
    }
    for argument, samplers in choices.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, samplers, ids=[sampler.name for sampler in samplers])


@pytest.fixture
def samplers() -> list[Sampler]:
    return SAMPLERS


@pytest.fixture
def named(samplers: list[Sampler]) -> Callable[[str], Sampler]:
    return lambda name: webui.samplers.find_sampler(name, samplers)


def no_noise(sigma: float, lower: float) -> Tensor:
    raise AssertionError("noise was drawn although eta is 0")


@dataclass(frozen=True)
class Gaussian:
    """Data of deviation ``width``: the best denoiser and the exact path of the probability-flow ODE are known."""

    width: float

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return x * (self.width**2 / (self.width**2 + sigma**2))

    def path(self, x: Tensor, sigma: float, lower: float) -> Tensor:
        return x * ((self.width**2 + lower**2) / (self.width**2 + sigma**2)) ** 0.5


@pytest.fixture
def gaussian() -> Gaussian:
    return Gaussian(width=0.7)


@pytest.fixture
def walk() -> Callable[..., Tensor]:
    """The latent at the last sigma in variance-exploding form, whichever form the sampler ends in."""

    def run(
        sampler: Sampler, denoise: Any, x: Tensor, sigmas: Sequence[float], *, eta: float = 0.0, noise: Any = no_noise
    ) -> Tensor:
        steps = list(sampler.integrate(denoise, x, sigmas, noise, eta=eta))
        assert sampler.plans_levels or [step.sigma for step in steps] == list(sigmas[:-1])
        return steps[-1].x * ((1.0 + sigmas[-1] ** 2) ** 0.5 if sampler.grid else 1.0)

    return run


def quadrature(function: Callable[[float], float], start: float, end: float, **_: float) -> tuple[float, float]:
    points, weights = numpy.polynomial.legendre.leggauss(8)
    half = (end - start) / 2
    return sum(w * half * function(start + half * (p + 1)) for p, w in zip(points, weights, strict=True)), 0.0


@pytest.fixture(scope="session")
def k_diffusion() -> types.ModuleType:
    """``k_diffusion.sampling`` alone: the package's own ``__init__`` imports programs that sampling does not need."""
    spec = importlib.util.find_spec("k_diffusion")
    assert spec is not None and spec.origin is not None, "the test requirements include k-diffusion"
    package = types.ModuleType("k_diffusion")
    package.__path__ = [str(Path(spec.origin).parent)]
    utils: Any = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
    odeint: Any = types.ModuleType("torchdiffeq")
    odeint.odeint = None
    scipy: Any = types.ModuleType("scipy")
    scipy.integrate = types.ModuleType("scipy.integrate")
    scipy.integrate.quad = quadrature
    stand_ins = {
        "k_diffusion": package,
        "k_diffusion.utils": utils,
        "torchdiffeq": odeint,
        "torchsde": types.ModuleType("torchsde"),
        "scipy": scipy,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, module in stand_ins.items():
            patch.setitem(sys.modules, name, module)
        package.utils = utils  # type: ignore[attr-defined]
        sampling = importlib.import_module("k_diffusion.sampling")
        patch.delitem(sys.modules, "k_diffusion.sampling")
    return sampling


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20)
