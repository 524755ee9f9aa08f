"""A whole checkpoint: the UNet, and with it the text encoder, taught further or from nothing.

The training of Rombach et al. 2022 (arXiv:2112.10752, equation 3): the VAE is frozen and has encoded the pictures once.
With a class folder this is DreamBooth (Ruiz et al. 2022, arXiv:2208.12242, equation 2).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from webui.checkpoints import keys
from webui.hooks import hookimpl
from webui.training.kinds import Materials, Task, TrainingKind, Weights

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from webui.model import Model
    from webui.result import Pixels
    from webui.training.captions import Captions
    from webui.training.latents import Latents
    from webui.training.objective import Objective


FILE_PREFIXES = {"unet": keys.UNET_PREFIX, "text": keys.CLIP_PREFIX, "vae": keys.VAE_PREFIX}
CONSTANTS = ("betas", "alphas_cumprod", "ztsnr")
"""Tensors outside the networks that a checkpoint hands on."""
NOT_HANDED_ON = ("modelspec.title", "starter.training")
"""Metadata that is about the base alone: its title, and how the first edition of the embedded model was made."""


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """What of a checkpoint is taught, and what it says about itself.

    fresh: begin the UNet with random weights instead of the base's
    train_text: teach the text encoder along
    text_encoder: take the text encoder of this CLIP file instead of the base's
    vae: take this VAE file instead of the base's
    note: what the page says about the model
    examples: prompts that the page offers, one a line
    advice: recommended settings, such as "sampler=Euler; steps=20; cfg_scale=5"
    """

    fresh: bool = False
    train_text: bool = False
    text_encoder: str = ""
    vae: str = ""
    note: str = ""
    examples: str = ""
    advice: str = ""


@dataclass(frozen=True)
class CheckpointTask:
    """The networks of ``model`` in the dtype they compute in."""

    materials: Materials
    options: CheckpointOptions
    model: Model
    objective: Objective
    latents: Latents
    captions: Captions
    trained: Mapping[str, nn.Parameter]
    initial: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)

    def loss(self, items: Sequence[int], step: int, random: Generator) -> Mapping[str, Tensor]:
        """The UNet's loss; that of class pictures counts as the request says."""
        from webui.training.captions import context
        from webui.training.unet_step import unet_loss

        def read(tokens: Tensor) -> Tensor:
            return context(self.model.text_encoder, tokens, learns=self.options.train_text)

        return unet_loss(self, items, self.latents.batch(items, random), random, read)

    def samples(self) -> list[Pixels]:
        """A picture per sample prompt."""
        from webui.training.sampling import draw

        return draw(self.materials.request.samples, self.model, self.materials.compute, side=self.materials.data.size)

    def weights(self, trained: Mapping[str, Tensor]) -> Weights:
        """The checkpoint in CompVis' single-file layout; what did not learn is exactly as it was read."""
        values = {**self.initial, **trained}
        tensors = {_file_name(name): value for name, value in values.items()}
        return Weights({**tensors, **self._constants()}, self._metadata())

    def _constants(self) -> dict[str, Tensor]:
        """The base's noise table, and the marker tensors by which programs know v-prediction and zero terminal SNR."""
        import torch

        from webui.diffusion.prediction import Prediction

        base = self.materials.base
        constants = base.load("", torch.float32, torch.device("cpu"), lambda name: name in CONSTANTS)
        if self.objective.prediction is Prediction.V:
            constants["v_pred"] = torch.zeros(0)
        return constants

    def _metadata(self) -> dict[str, str]:
        kept = {
            name: text
            for name, text in self.materials.base.header.metadata.items()
            if name.startswith(("modelspec.", "starter.")) and name not in NOT_HANDED_ON
        }
        said = {"starter.note": self.options.note, "starter.examples": self.options.examples,
                "starter.defaults": self.options.advice}  # fmt: skip
        return {
            **kept,
            "modelspec.architecture": "stable-diffusion-v1",
            "modelspec.prediction_type": self.objective.prediction.value,
            "starter.config": json.dumps(self.config),
            **{name: text for name, text in said.items() if text},
        }


def _file_name(name: str) -> str:
    part, _, rest = name.partition(".")
    return FILE_PREFIXES[part] + rest


def begin(options: CheckpointOptions, materials: Materials) -> Task:
    """Put the networks together, encode the pictures, and set out what learns."""
    from webui.training.captions import Captions
    from webui.training.latents import LatentCache
    from webui.training.networks import lowered, with_chosen_parts
    from webui.training.objective import Objective

    chosen = with_chosen_parts(options, materials)
    model, request, compute = chosen.model, materials.request, materials.compute
    cache = LatentCache(materials.cache, model.vae, chosen.vae_digest, model.scale_factor, compute, materials.tell)
    vae_exact = {f"vae.{name}": tensor.clone() for name, tensor in model.vae.state_dict().items()}
    latents = cache.latents(materials.data, flips=request.data.flip)
    unet, unet_exact = lowered(model.unet, compute, "unet.")
    text, text_exact = lowered(model.text_encoder, compute, "text.")
    trained = {f"unet.{name}": parameter for name, parameter in unet.named_parameters()}
    if options.train_text:
        trained |= {f"text.{name}": parameter for name, parameter in text.named_parameters()}
    for parameter in trained.values():
        parameter.requires_grad_(True)
    return CheckpointTask(
        materials=materials,
        options=options,
        model=model,
        objective=Objective.of(model.prediction, model.noise_table, request.noise),
        latents=latents,
        captions=Captions.of([item.caption for item in materials.data.items], model.tokenizer),
        trained=trained,
        initial={**unet_exact, **text_exact, **vae_exact},
        config=chosen.config,
    )


@hookimpl
def register_training_kinds() -> list[TrainingKind]:
    """A checkpoint."""
    return [
        TrainingKind(
            name="checkpoint",
            label="Checkpoint",
            summary="Teach a whole model further, or a new one from nothing; with class pictures: DreamBooth.",
            folder="checkpoint",
            options=CheckpointOptions,
            begin=begin,
            defaults={"optimiser.rate": 1e-5, "steps": 2000, "batch_size": 4},
        )
    ]
