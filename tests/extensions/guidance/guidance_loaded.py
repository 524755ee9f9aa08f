"""The guidance extension as the program loads it, and the tiny model guided by its modules."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from tiny_model import tiny_request
from torch import Tensor

from webui import families
from webui.checkpoints.formats import BUILT_IN
from webui.conditioning import Contribution, Pictures
from webui.device import choose
from webui.diffusion.guidance import Guiding
from webui.diffusion.prediction import Prediction
from webui.families.sd15 import StableDiffusion1
from webui.model import Model
from webui.networks.unet import Openings
from webui.pipeline.denoising import denoiser, prepare
from webui.plugins.discovery import BUNDLED
from webui.plugins.manager import Plugins
from webui.request import GenerationRequest

EXTENSIONS = Path(__file__).resolve().parents[3] / "extensions"
PLUGINS = Plugins.load(EXTENSIONS, disabled=frozenset(BUNDLED) - {"guidance"})
MODULES = {name: PLUGINS.conditioning_modules[name] for name in PLUGINS.conditioning_modules}
X = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(3)) * 3
SIGMA = 3.0


def file(name: str) -> ModuleType:
    """A file of the extension as the module that it was loaded as."""
    return importlib.import_module(f"webui_extensions.guidance.{name}")


def no_picture(*_: Any) -> Any:
    raise AssertionError("no picture is needed")


def tiny(checkpoint: Path) -> Model:
    return families.load(BUILT_IN.open(checkpoint), {"SD1": StableDiffusion1()}, choose("cpu", "fp32", 1))


def request_for(**changes: Any) -> GenerationRequest:
    request = tiny_request(**{"cfg_scale": 5.0, **changes})
    return request.resolved(checkpoint="tiny", vae="None", sampler="Euler", schedule="Karras", eta=0.0)


def contribution(name: str, model: Model, request: GenerationRequest, **options: Any) -> Contribution:
    module = MODULES[name]
    pictures = Pictures(*[no_picture] * len(Pictures.__dataclass_fields__))
    return module.prepare(module.options(**options), model, request, pictures)


def asked(
    model: Model, *contributions: Contribution, x: Tensor = X, sigma: float = SIGMA, call: int = 0, **changes: Any
) -> Tensor:
    """The guided clean latent seen in ``x``."""
    request = request_for(**changes)
    sampler, schedule = PLUGINS.samplers["Euler"], PLUGINS.schedules["Karras"]
    with torch.inference_mode():
        setup = prepare(request, model, sampler, schedule, contributions)
        return denoiser(request, setup, call)(x, sigma)


def plainly_guided(model: Model, **where: Any) -> Guiding:
    """All that is known when plain guidance has made its clean latent."""
    kept: list[Guiding] = []

    def keep(guiding: Guiding) -> Tensor:
        kept.append(guiding)
        return guiding.guided

    asked(model, Contribution(Openings(), guide=keep), **where)
    return kept[0]


def guiding_of(cond: Tensor, uncond: Tensor, cfg_scale: float, **more: Any) -> Guiding:
    """Answers that no network gave."""
    known = Guiding(
        x=X,
        sigma=SIGMA,
        cond=cond,
        uncond=uncond,
        guided=uncond + (cond - uncond) * cfg_scale,
        cfg_scale=cfg_scale,
        call=0,
        calls=11,
        prediction=Prediction.EPSILON,
        ask=no_picture,
    )
    return replace(known, **more)
