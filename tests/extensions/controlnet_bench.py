"""A unit on the tiny model: its contribution, and its picture beside one that diffusers' UNet makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from controlnet_parts import part, plugins
from oracles import diffusers_unet
from safetensors.torch import save_file
from tiny_model import tiny_request
from torch import Tensor

from webui import families
from webui.checkpoints.formats import BUILT_IN
from webui.checkpoints.library import ModelEntry
from webui.conditioning import Contribution, Pictures
from webui.device import choose
from webui.diffusion.schedules import resolve_schedule
from webui.errors import NotFoundError
from webui.families.sd15 import StableDiffusion1
from webui.model import Model
from webui.pipeline.denoising import prepare
from webui.pipeline.moments import Made
from webui.pipeline.run import run_group
from webui.request import GenerationRequest
from webui.result import Pixels

IMAGE, MASK, REGION = ("a" * 64, "b" * 64, "c" * 64)
STEPS = 4


def picture(height: int = 64, width: int = 64, seed: int = 4) -> Pixels:
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def half(height: int = 64, width: int = 64) -> Pixels:
    """A mask of the left half."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 255
    return mask


def tiny(checkpoint: Path) -> Model:
    file = BUILT_IN.open(checkpoint)
    return families.load(file, {"SD1": StableDiffusion1()}, choose("cpu", "fp32", 1))


@dataclass
class Bench:
    """The model, a folder for model files, and stored pictures by their digest."""

    model: Model
    folder: Path
    stored: dict[str, Pixels] = field(default_factory=lambda: {IMAGE: picture(), MASK: half(), REGION: half()})
    networks: Any = field(default_factory=lambda: part("networks").Networks())

    def save(self, kind: str, name: str, weights: Mapping[str, Tensor]) -> Path:
        path = self.folder / kind / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: tensor.contiguous().clone() for key, tensor in weights.items()}, path)
        return path

    def pictures(self, second_pass: bool = False) -> Pictures:
        known = plugins().preprocessors
        return Pictures(
            load=self.stored.__getitem__,
            preprocess=lambda name, pixels, options: known[name].run(pixels, options),
            model_file=self._file,
            encode=lambda text: pytest.fail("a unit has no prompt"),
            mask=self.stored.__getitem__,
            preprocessor=known.__getitem__,
            model_entries=self._entries,
            second_pass=second_pass,
        )

    def _file(self, kind: str, name: str) -> Path:
        path = self.folder / kind / f"{name}.safetensors"
        if not path.exists():
            raise NotFoundError(f"no {name}")
        return path

    def _entries(self, kind: str) -> Sequence[ModelEntry]:
        files = sorted((self.folder / kind).glob("*.safetensors"))
        return [ModelEntry(kind, path.stem, path, 0, 0) for path in files]

    def unit(self, **options: Any) -> Any:
        return part("unit").Unit(**{"image": IMAGE, "resize_mode": part("fitting").ResizeMode.JUST_RESIZE, **options})

    def contribution(
        self, unit: Any, request: GenerationRequest | None = None, second_pass: bool = False
    ) -> Contribution:
        steering = part("steering")
        with torch.inference_mode():
            pictures = self.pictures(second_pass)
            return steering.contribution(steering.Job(unit, self.model, request or resolved(), pictures, self.networks))

    def make(self, *units: Any, model: Model | None = None, request: GenerationRequest | None = None) -> Pixels:
        """The picture of a request with these units."""
        request = request or resolved()
        sampler = plugins().samplers["Euler"]
        schedule = resolve_schedule(sampler, "Uniform", plugins().schedules.values())
        contributions = [self.contribution(unit, request) for unit in units]
        with torch.inference_mode():
            setup = prepare(request, model or self.model, sampler, schedule, contributions)
            told = list(run_group(request, setup, None, (0,)))
        return next(moment.picture.pixels for moment in told if isinstance(moment, Made))


def resolved(**changes: Any) -> GenerationRequest:
    request = tiny_request(**{"prompt": "a red square", "negative_prompt": "blurry", "steps": STEPS, **changes})
    return request.resolved(checkpoint="tiny", vae="None", sampler="Euler", schedule="Uniform", eta=0.0)


class Stand:
    """A UNet of ours in name, one of diffusers in deed: ``ask(unet, x, timesteps, context)`` answers each call."""

    def __init__(self, model: Model, ask: Callable[[Any, Tensor, Tensor, Tensor], Any], theirs: Any = None) -> None:
        self.config, self.ask = model.unet.config, ask
        self.theirs = diffusers_unet(model.unet) if theirs is None else theirs

    def __call__(self, x: Tensor, timesteps: Tensor, context: Tensor, openings: Any = None) -> Tensor:
        return self.ask(self.theirs, x, timesteps, context).sample


def of_diffusers(model: Model, ask: Callable[[Any, Tensor, Tensor, Tensor], Any], theirs: Any = None) -> Model:
    return replace(model, unet=Stand(model, ask, theirs))  # type: ignore[arg-type]


def apart(first: Pixels, second: Pixels) -> int:
    """The largest difference of two pictures, in levels of 255."""
    return int(np.abs(first.astype(int) - second.astype(int)).max())


def as_tensor(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
