"""What ControlNet and T2I-Adapter have in common: a frozen model, and a control picture beside each training picture.

The loss is that of the model's own training (Rombach et al. 2022, arXiv:2112.10752, equation 3), asked of the model
with the adapter's residuals in its openings (Zhang et al. 2023, arXiv:2302.05543, equation 5).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Generator, Tensor, nn

from webui.diffusion.guidance import GuidedDenoiser, NetworkCall
from webui.diffusion.noise import ImageNoise
from webui.diffusion.schedules import UNIFORM
from webui.diffusion.start import start_from_noise
from webui.errors import RequestError, unknown_name
from webui.images.resize import resize
from webui.latents import codec
from webui.model import Model
from webui.networks.unet import EncoderConfig, Openings
from webui.pipeline.denoising import denoiser, latent_shape, prepare, seeds
from webui.request import GenerationRequest, ResizeMode, Sampling, Size
from webui.result import Pixels
from webui.samplers import euler
from webui.training.captions import Captions, context
from webui.training.data import DataSet
from webui.training.kinds import Materials, Weights
from webui.training.latents import LatentCache, Latents
from webui.training.networks import lowered
from webui.training.objective import Objective
from webui.training.unet_step import unet_loss

PREPROCESSOR_KEY = "webui.preprocessor"
"""The metadata under which an adapter tells what makes its control pictures; empty when they came from a folder."""

Adapt = Callable[[Tensor, Tensor, Tensor, Tensor], Openings]
"""(noisy latent, control picture (B, 3, H, W) in [0, 1], timesteps, context) -> the openings of the UNet's call."""


class ControlOptions(Protocol):
    """What the options of both kinds have."""

    @property
    def preprocessor(self) -> str:
        """The preprocessor that makes control pictures where no folder of them was named."""
        ...


@dataclass(frozen=True)
class Hints:
    """The control picture of each item: from the data's folder of them, or made by ``preprocess``."""

    data: DataSet
    preprocess: Callable[[Pixels], Pixels] | None

    @classmethod
    def of(cls, preprocessor: str, materials: Materials) -> Hints:
        """Those that the request asks for.

        Raises RequestError when there is no such preprocessor, and for one that needs a model file.
        """
        if materials.request.data.control_folder:
            return cls(materials.data, None)
        if str(preprocessor) not in materials.preprocessors:
            raise unknown_name("preprocessor", str(preprocessor), materials.preprocessors)
        one = materials.preprocessors[str(preprocessor)]
        if one.weights is not None:
            raise RequestError(
                f"{one.name} computes with a network, which a training does not load; make the control pictures first "
                "and name their folder (data.control_folder)."
            )
        return cls(materials.data, lambda pixels: one.run(pixels, {}))

    def pixels(self, item: int, *, flip: bool = False) -> Pixels:
        """The control picture (H, W, 3) uint8 of an item, cut and mirrored as the item's picture is."""
        if self.preprocess is None:
            return self.data.control_pixels(item, flip=flip)
        return self.preprocess(self.data.pixels(item, flip=flip))

    def batch(self, items: Sequence[int], mirrored: Sequence[int]) -> Tensor:
        """Control pictures (B, 3, H, W) fp32 in [0, 1] of items of one bucket."""
        return as_hint([self.pixels(item, flip=bool(flip)) for item, flip in zip(items, mirrored, strict=True)])


def as_hint(pictures: Sequence[Pixels]) -> Tensor:
    """Pictures (H, W, 3) uint8 of one size as (B, 3, H, W) fp32 in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255.0


@dataclass(frozen=True)
class ControlTask:
    """An adapter being taught; ``trained`` are its tensors below ``prefix``, in the dtype they compute in.

    ``sides`` are the latents of the pictures and, with flips, those of the mirrored ones.  The file's names are those
    of the network below ``file_prefix``.
    """

    materials: Materials
    model: Model
    objective: Objective
    sides: tuple[Latents, ...]
    captions: Captions
    hints: Hints
    adapt: Adapt
    trained: Mapping[str, nn.Parameter]
    initial: Mapping[str, Tensor]
    prefix: str
    file_prefix: str
    metadata: Mapping[str, str]

    def loss(self, items: Sequence[int], step: int, random: Generator) -> Mapping[str, Tensor]:
        """The UNet's loss with the adapter's help; that of class pictures counts as the request says."""
        mirrored = torch.randint(len(self.sides), (len(items),), generator=random).tolist()
        latents = [self.sides[side].batch([item], random) for item, side in zip(items, mirrored, strict=True)]
        hints = self.hints.batch(items, mirrored)
        return unet_loss(
            self,
            items,
            torch.cat(latents),
            random,
            lambda tokens: context(self.model.text_encoder, tokens, learns=False),
            adapt=lambda noisy, timesteps, read: self.adapt(noisy, hints, timesteps, read),
        )

    def samples(self) -> list[Pixels]:
        """For each sample prompt a control picture of the data and, to its right, what is drawn after it."""
        side, prompts = self.materials.data.size, self.materials.request.samples.prompts
        shown = [self.hints.pixels(number % len(self.materials.data.items)) for number in range(len(prompts))]
        square = [resize(pixels, side, side, ResizeMode.CROP) for pixels in shown]
        return [
            np.concatenate([hint, self._draw(prompt, hint)], axis=1)
            for prompt, hint in zip(prompts, square, strict=True)
        ]

    def weights(self, trained: Mapping[str, Tensor]) -> Weights:
        """The adapter in its published layout."""
        tensors = {self.file_prefix + name.removeprefix(self.prefix): tensor for name, tensor in trained.items()}
        return Weights(tensors, self.metadata)

    def _draw(self, prompt: str, hint: Pixels) -> Pixels:
        """The picture (H, W, 3) uint8, of the control picture's size, by Euler on the uniform schedule."""
        model, samples, sampler = self._computing, self.materials.request.samples, euler.register_samplers()[0]
        request = GenerationRequest(
            prompt=prompt,
            size=Size(width=hint.shape[1], height=hint.shape[0]),
            seed=samples.seed,
            sampling=Sampling(
                sampler=sampler.name, schedule=UNIFORM.name, steps=samples.steps, cfg_scale=samples.cfg_scale
            ),
        )
        with torch.inference_mode():
            plain = denoiser(request, prepare(request, model, sampler, UNIFORM))
            start = start_from_noise(sampler, UNIFORM, model.noise_table, samples.steps)
            noise = ImageNoise(seeds(request, (0,)), latent_shape(request, model), model.compute.device)
            latent = noise.initial() * start.noise
            denoise = self._controlled(plain, as_hint([hint]))
            for step in sampler.integrate(denoise, latent, start.sigmas, noise, eta=0.0):
                latent = step.x
            return codec.decode(latent, model)

    @property
    def _computing(self) -> Model:
        """The model, saying of itself the dtypes that its networks have now."""
        dtypes = (next(self.model.unet.parameters()).dtype, next(self.model.vae.parameters()).dtype)
        compute = replace(self.materials.compute, dtype=dtypes[0], vae_dtype=dtypes[1])
        return replace(self.model, compute=compute)

    def _controlled(self, plain: GuidedDenoiser, hint: Tensor) -> GuidedDenoiser:
        """The denoiser with the adapter's openings at each call."""

        def predict(call: NetworkCall) -> Tensor:
            timesteps = torch.full((len(call.x),), call.timestep, dtype=torch.float32, device=call.x.device)
            openings = self.adapt(call.x, hint, timesteps, call.context)
            output: Tensor = self.model.unet(call.x, timesteps, call.context, openings)
            return output

        return replace(plain, predict=predict)


def control_task(
    network: nn.Module,
    adapt: Adapt,
    options: ControlOptions,
    materials: Materials,
    *,
    file_prefix: str,
    architecture: str,
) -> ControlTask:
    """The task of teaching ``network`` (fp32, lowered here) for the model, which is frozen; encodes the pictures.

    Raises RequestError for an unknown preprocessor, and when the model is asked to predict something else.
    """
    model, request, compute = materials.model, materials.request, materials.compute
    objective = Objective.of_frozen(model.prediction, model.noise_table, request.noise)
    hints = Hints.of(options.preprocessor, materials)
    cache = LatentCache(materials.cache, model.vae, materials.base_sha256, model.scale_factor, compute, materials.tell)
    sides = _sides(cache.latents(materials.data, flips=request.data.flip))
    for part in (model.unet, model.text_encoder):
        part.requires_grad_(False).to(compute.device, compute.dtype)
    prefix = "adapter."
    lowered_network, exact = lowered(network.requires_grad_(True), compute, prefix)
    return ControlTask(
        materials=materials,
        model=model,
        objective=objective,
        sides=sides,
        captions=Captions.of([item.caption for item in materials.data.items], model.tokenizer),
        hints=hints,
        adapt=adapt,
        trained={prefix + name: parameter for name, parameter in lowered_network.named_parameters()},
        initial=exact,
        prefix=prefix,
        file_prefix=file_prefix,
        metadata={
            "modelspec.architecture": architecture,
            "modelspec.prediction_type": model.prediction.value,
            "starter.config": json.dumps({"unet": _untold(model.unet.config)}),
            PREPROCESSOR_KEY: "" if request.data.control_folder else options.preprocessor,
        },
    )


def _untold(config: EncoderConfig) -> dict[str, Any]:
    """The sizes that leave no trace in the shapes of tensors, by the names that checkpoints state them under."""
    return {"num_heads": config.heads, "norm_groups": config.norm_groups}


def _sides(latents: Latents) -> tuple[Latents, ...]:
    """The latents of the pictures and, where there are some, those of the mirrored pictures."""
    if not latents.flips:
        return (latents,)
    halves = [{name: moments.chunk(2)[side] for name, moments in latents.moments.items()} for side in (0, 1)]
    return tuple(replace(latents, moments=half, flips=False) for half in halves)
