"""The regional extension as the program loads it."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from tiny_model import tiny_request
from torch import Tensor

from webui import families
from webui.checkpoints.formats import BUILT_IN
from webui.conditioning import Contribution, Pictures
from webui.conditioning.modules import options_of
from webui.device import choose
from webui.families.sd15 import StableDiffusion1
from webui.model import Model
from webui.pipeline.denoising import calls, denoiser, prepare, prompt_encoder
from webui.plugins.discovery import BUNDLED
from webui.plugins.manager import Plugins
from webui.prompt.schedule import Timeline
from webui.request import GenerationRequest

EXTENSIONS = Path(__file__).resolve().parents[3] / "extensions"
PLUGINS = Plugins.load(EXTENSIONS, disabled=frozenset(BUNDLED) - {"regional"})
REGIONAL = PLUGINS.conditioning_modules["Regional"]


def file(name: str) -> ModuleType:
    """A file of the extension as the module that it was loaded as."""
    return importlib.import_module(f"webui_extensions.regional.{name}")


X = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(3)) * 3
SIGMA = 3.0
SAMPLER, SCHEDULE = PLUGINS.samplers["Euler"], PLUGINS.schedules["Karras"]


def no_picture(*_: Any) -> Any:
    raise AssertionError("no picture is needed")


def request_for(prompt: str, negative: str = "", cfg_scale: float = 5.0) -> GenerationRequest:
    request = tiny_request(prompt=prompt, negative_prompt=negative, cfg_scale=cfg_scale, steps=4)
    return request.resolved(checkpoint="tiny", vae="None", sampler="Euler", schedule="Karras", eta=0.0)


def contribution(model: Model, request: GenerationRequest, load: Any = no_picture, **options: Any) -> Contribution:
    timeline = Timeline(calls(request, SAMPLER))
    encode = partial(prompt_encoder(request, model).timed, timeline=timeline)
    pictures = Pictures(
        load=load,
        preprocess=no_picture,
        model_file=no_picture,
        encode=encode,
        mask=no_picture,
        preprocessor=no_picture,
        model_entries=no_picture,
    )
    return REGIONAL.prepare(options_of(REGIONAL, options), model, request, pictures)


def asked(
    model: Model, request: GenerationRequest, *contributions: Contribution, call: int = 0, sigma: float = SIGMA
) -> Tensor:
    """The guided clean latent seen in ``X``."""
    with torch.inference_mode():
        return denoiser(request, prepare(request, model, SAMPLER, SCHEDULE, contributions), call)(X, sigma)


def tiny(checkpoint: Path) -> Model:
    return families.load(BUILT_IN.open(checkpoint), {"SD1": StableDiffusion1()}, choose("cpu", "fp32", 1))
