"""Whole txt2img runs beside diffusers' networks and schedulers, with the same random weights and the same noise.

DDIM and PLMS end at timestep 1, as AUTOMATIC1111 leaves it, so diffusers' last step, from 1 to the clean latent, is not
made.  DPM++ 2M is walked on sigmas of whole timesteps, because diffusers rounds them before it asks the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles import diffusers_unet, diffusers_vae, transformers_clip
from tiny_model import tiny_request
from torch import Tensor

from webui import families
from webui.checkpoints.formats import BUILT_IN
from webui.device import choose
from webui.diffusion.noise import ImageNoise
from webui.diffusion.schedules import Schedule, resolve_schedule
from webui.families.sd15 import StableDiffusion1
from webui.model import Model
from webui.pipeline.denoising import prepare
from webui.pipeline.moments import Made
from webui.pipeline.run import run_group
from webui.plugins.manager import Plugins
from webui.result import Pixels

PLUGINS = Plugins.load(None)
TABLE = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
STEPS = 10
SEED = 21


@dataclass(frozen=True)
class Oracle:
    """diffusers' and transformers' networks with the tiny model's weights."""

    unet: Any
    vae: Any
    text: Any
    model: Model

    def context(self, prompt: str) -> Tensor:
        ids = self.model.tokenizer.tokenise(prompt)
        tokens = torch.tensor([[49406, *ids, *[49407] * (76 - len(ids))]])
        return self.text(tokens).last_hidden_state

    def guided(self, x: Tensor, timestep: Tensor, cfg_scale: float) -> Tensor:
        context = torch.cat([self.context("a red square"), self.context("blurry")])
        cond, uncond = self.unet(x.repeat(2, 1, 1, 1), timestep, encoder_hidden_states=context).sample.chunk(2)
        return uncond + (cond - uncond) * cfg_scale

    def picture(self, latent: Tensor) -> Pixels:
        decoded = self.vae.decode(latent / 0.18215).sample[0]
        return ((decoded / 2 + 0.5).clamp(0, 1) * 255).permute(1, 2, 0).numpy().astype(np.uint8)


@pytest.fixture(scope="module")
def oracle(tiny_checkpoint: Path) -> Oracle:
    file = BUILT_IN.open(tiny_checkpoint)
    model = families.load(file, {"SD1": StableDiffusion1()}, choose("cpu", "fp32", 1))
    return Oracle(diffusers_unet(model.unet), diffusers_vae(model.vae), transformers_clip(model.text_encoder), model)


def ours(model: Model, sampler_name: str, schedule: Schedule | None = None, steps: int = STEPS) -> Pixels:
    sampler = PLUGINS.samplers[sampler_name]
    schedule = schedule or resolve_schedule(sampler, "Uniform", PLUGINS.schedules.values())
    request = tiny_request(prompt="a red square", negative_prompt="blurry", seed=SEED, steps=steps).resolved(
        checkpoint="tiny", vae="None", sampler=sampler.name, schedule=schedule.name, eta=sampler.default_eta or 0.0
    )
    with torch.inference_mode():
        told = list(run_group(request, prepare(request, model, sampler, schedule), None, (0,)))
    return next(moment.picture.pixels for moment in told if isinstance(moment, Made))


def walked(oracle: Oracle, scheduler: Any, timesteps: Any, x: Tensor, **step: Any) -> Tensor:
    for timestep in timesteps:
        seen = scheduler.scale_model_input(x, timestep)
        x = scheduler.step(oracle.guided(seen, timestep, 7.0), timestep, x, **step).prev_sample
    return x


class Draws:
    """Stands in for diffusers' noise: the picture's own generator, in order."""

    def __init__(self, noise: ImageNoise) -> None:
        self.noise = noise

    def __call__(self, *_: Any, **__: Any) -> Tensor:
        return self.noise(0.0, 0.0)


def timestep_end(oracle: Oracle, scheduler: Any, x: Tensor) -> Tensor:
    scheduler.set_timesteps(STEPS)
    return walked(oracle, scheduler, scheduler.timesteps[:-1], x)


def ddim(oracle: Oracle, noise: ImageNoise) -> Tensor:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**TABLE, steps_offset=1, clip_sample=False, set_alpha_to_one=False)
    return timestep_end(oracle, scheduler, noise.initial())


def pndm(oracle: Oracle, noise: ImageNoise) -> Tensor:
    from diffusers import PNDMScheduler

    scheduler = PNDMScheduler(**TABLE, steps_offset=1, skip_prk_steps=True, set_alpha_to_one=False)
    return timestep_end(oracle, scheduler, noise.initial())


def euler(oracle: Oracle, noise: ImageNoise) -> Tensor:
    from diffusers import EulerDiscreteScheduler

    return on_sigmas(oracle, EulerDiscreteScheduler(**TABLE, timestep_spacing="linspace"), noise)


def heun(oracle: Oracle, noise: ImageNoise) -> Tensor:
    from diffusers import HeunDiscreteScheduler

    return on_sigmas(oracle, HeunDiscreteScheduler(**TABLE, timestep_spacing="linspace"), noise)


def euler_a(oracle: Oracle, noise: ImageNoise) -> Tensor:
    from diffusers import EulerAncestralDiscreteScheduler
    from diffusers.schedulers import scheduling_euler_ancestral_discrete as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "randn_tensor", Draws(noise))
        return on_sigmas(oracle, EulerAncestralDiscreteScheduler(**TABLE, timestep_spacing="linspace"), noise)


def on_sigmas(oracle: Oracle, scheduler: Any, noise: ImageNoise) -> Tensor:
    scheduler.set_timesteps(STEPS)
    sigma = float(scheduler.sigmas[0])
    return walked(oracle, scheduler, scheduler.timesteps, noise.initial() * sigma)


ORACLES: dict[str, Callable[[Oracle, ImageNoise], Tensor]] = {
    "DDIM": ddim,
    "PLMS": pndm,
    "Euler": euler,
    "Euler a": euler_a,
    "Heun": heun,
}


def image_noise() -> ImageNoise:
    return ImageNoise([SEED], (4, 8, 8))


def assert_equal_within_one(found: Pixels, expected: Pixels) -> None:
    assert found.std() > 5, "a flat picture proves nothing"
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("name", ORACLES)
def test_a_whole_run_is_diffusers(oracle: Oracle, name: str) -> None:
    with torch.inference_mode():
        expected = oracle.picture(ORACLES[name](oracle, image_noise()))
    assert_equal_within_one(ours(oracle.model, name), expected)


def whole_timesteps(steps: int) -> tuple[Schedule, list[int]]:
    """A schedule on table entries, highest first, and their timesteps."""
    timesteps = np.linspace(999, 0, steps).round().astype(int).tolist()
    return Schedule(name="whole", key="whole", sigmas=lambda table, n: [*table.at(timesteps), 0.0]), timesteps


def test_dpmpp_2m_is_diffusers(oracle: Oracle) -> None:
    from diffusers import DPMSolverMultistepScheduler

    schedule, timesteps = whole_timesteps(STEPS)
    scheduler = DPMSolverMultistepScheduler(
        **TABLE, algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero"
    )
    scheduler.set_timesteps(timesteps=timesteps)
    noise = image_noise().initial()
    # diffusers walks the variance-preserving latent: alpha * x, with alpha = 1 / sqrt(1 + sigma^2)
    first = oracle.model.noise_table.sigma_max
    with torch.inference_mode():
        latent = walked(oracle, scheduler, scheduler.timesteps, noise * first / math.sqrt(1 + first**2))
        expected = oracle.picture(latent)
    assert_equal_within_one(ours(oracle.model, "DPM++ 2M", schedule), expected)


@pytest.fixture(scope="module", autouse=True)
def tiny_pictures_differ(oracle: Oracle) -> Iterator[None]:
    """The comparison can fail: another sampler's picture is not equal."""
    first, second = ours(oracle.model, "Euler"), ours(oracle.model, "Euler a")
    assert np.abs(first.astype(int) - second.astype(int)).max() > 5
    yield
