"""Against diffusers' schedulers in float32, fed the same noise, through our own guided denoiser on a toy network."""

from __future__ import annotations

import math
from collections.abc import Callable

import diffusers
import pytest
import torch
from torch import Tensor

from webui.diffusion.guidance import GuidedDenoiser, NetworkCall
from webui.diffusion.noise import ImageNoise
from webui.diffusion.prediction import Prediction
from webui.diffusion.schedules import NoiseTable, karras, timestep_grid

TABLE = NoiseTable.scaled_linear()
SHAPE = (4, 5, 7)
SEED = 5
STEPS = 12
SD1 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LEADING = {"timestep_spacing": "leading", "steps_offset": 1}


def network(x: Tensor, timestep: float) -> Tensor:
    return torch.tanh(1.3 * x - 0.2 + timestep / 1000) + 0.1 * x.mean()


def denoiser(prediction: Prediction, timestep: Callable[[float], float]) -> GuidedDenoiser:
    def predict(call: NetworkCall) -> Tensor:
        return network(call.x, timestep(call.timestep))

    context = torch.zeros(1, 77, 8)
    return GuidedDenoiser(
        predict=predict, prediction=prediction, table=TABLE, cond=context, uncond=context, cfg_scale=1.0
    )


def diffused(scheduler, prediction: Prediction, *, last: int | None = None, **options) -> Tensor:
    """The latent that the scheduler ends with; ``last`` leaves steps out at the end."""
    scheduler.register_to_config(prediction_type={"epsilon": "epsilon", "v": "v_prediction"}[prediction.value])
    scheduler.set_timesteps(STEPS)
    generator = torch.Generator().manual_seed(SEED)
    x = torch.randn((1, *SHAPE), generator=generator) * scheduler.init_noise_sigma
    for t in scheduler.timesteps[:last]:
        output = network(scheduler.scale_model_input(x, t), float(t))
        x = scheduler.step(output, t, x, **{k: generator if v is SEED else v for k, v in options.items()}).prev_sample
    return x


def sampled(sampler, sigmas: list[float], start: float, prediction: Prediction, *, eta=0.0, timestep=float) -> Tensor:
    noise = ImageNoise([SEED], SHAPE)
    *_, last = sampler.integrate(denoiser(prediction, timestep), noise.initial() * start, sigmas, noise, eta=eta)
    return last.x


def assert_close(answer: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-4 * max(1.0, float(expected.abs().max())))


@pytest.fixture(params=list(Prediction), ids=lambda prediction: prediction.value)
def prediction(request: pytest.FixtureRequest) -> Prediction:
    return request.param


@pytest.mark.parametrize(
    ("name", "scheduler", "settings", "options"),
    [
        ("Euler", "EulerDiscreteScheduler", {}, {}),
        ("Euler", "EulerDiscreteScheduler", {"use_karras_sigmas": True}, {}),
        ("Euler a", "EulerAncestralDiscreteScheduler", {}, {"generator": SEED}),
        ("Heun", "HeunDiscreteScheduler", {}, {}),
        ("Heun", "HeunDiscreteScheduler", {"use_karras_sigmas": True}, {}),
    ],
)
def test_sigma_samplers(named, prediction, name: str, scheduler: str, settings: dict, options: dict) -> None:
    theirs = getattr(diffusers, scheduler)(**SD1, **LEADING, **settings)
    expected = diffused(theirs, prediction, **options)
    sigmas = list(dict.fromkeys(theirs.sigmas.tolist()))  # Heun's list names every inner level twice
    assert_close(sampled(named(name), sigmas, float(theirs.init_noise_sigma), prediction, eta=1.0), expected)


def test_dpmpp_2m(named, prediction) -> None:
    theirs = diffusers.DPMSolverMultistepScheduler(**SD1, use_karras_sigmas=True, final_sigmas_type="zero")
    expected = diffused(theirs, prediction)
    sigmas = karras(TABLE, STEPS)
    torch.testing.assert_close(torch.tensor(sigmas), theirs.sigmas, rtol=1e-4, atol=0)
    # That scheduler walks the variance-preserving latent and rounds the network's timesteps.
    answer = sampled(named("DPM++ 2M"), sigmas, math.sqrt(1 + sigmas[0] ** 2), prediction, timestep=round)
    assert_close(answer, expected)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("whole", [True, False], ids=["to timestep 0", "to timestep 1"])
def test_ddim(named, prediction, eta: float, whole: bool) -> None:
    theirs = diffusers.DDIMScheduler(**SD1, **LEADING, clip_sample=False, set_alpha_to_one=False)
    expected = diffused(theirs, prediction, last=None if whole else -1, eta=eta, generator=SEED)
    sigmas = _grid(theirs, whole)
    assert_close(sampled(named("DDIM"), sigmas, math.sqrt(1 + sigmas[0] ** 2), prediction, eta=eta), expected)


@pytest.mark.parametrize("whole", [True, False], ids=["to timestep 0", "to timestep 1"])
def test_plms(named, whole: bool) -> None:
    prediction = Prediction.EPSILON  # with v, that scheduler mixes the network's outputs instead of the noises
    theirs = diffusers.PNDMScheduler(**SD1, **LEADING, skip_prk_steps=True, set_alpha_to_one=False)
    expected = diffused(theirs, prediction, last=None if whole else -1)
    sigmas = _grid(theirs, whole)
    assert_close(sampled(named("PLMS"), sigmas, math.sqrt(1 + sigmas[0] ** 2), prediction), expected)


def _grid(scheduler, whole: bool) -> list[float]:
    """The sigmas of the scheduler's timesteps; our own grid for as many steps differs only in how it divides 1000."""
    timesteps = list(dict.fromkeys(scheduler.timesteps.tolist()))
    assert len(timesteps) == STEPS
    sigmas = TABLE.at(timesteps)
    assert sigmas == timestep_grid(TABLE, STEPS)[-STEPS:]
    return [*sigmas, TABLE.sigma_min] if whole else sigmas
