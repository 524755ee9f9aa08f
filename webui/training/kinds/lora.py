"""A LoRA: low-rank changes of a frozen model's layers learn; the file holds nothing else.

Hu et al. 2021 (arXiv:2106.09685); names, alpha and ``ss_`` metadata as kohya-ss/sd-scripts ``networks/lora.py`` and
``train_network.py`` write them.  With a class folder this is DreamBooth
(Ruiz et al. 2022, arXiv:2208.12242, equation 2) by LoRA.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webui.errors import RequestError
from webui.hooks import hookimpl
from webui.training.kinds import Materials, Task, TrainingKind, Weights
from webui.training.request import folder

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from webui.model import Model
    from webui.networks.layer_names import Target
    from webui.result import Pixels
    from webui.training.captions import Captions
    from webui.training.latents import Latents
    from webui.training.objective import Objective

MAX_RANK = 1024


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """How large a LoRA is and which layers it changes.

    rank: size of each layer's change; larger ones hold more detail and make a larger file
    alpha: the change counts alpha / rank; empty: as much as the rank
    unet: change the layers of the UNet's transformers
    convolutions: change all other layers of the UNet's blocks as well (LoCon)
    train_text: change the text encoder's layers as well
    """

    rank: int = 8
    alpha: float | None = None
    unet: bool = True
    convolutions: bool = False
    train_text: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int) or not 1 <= self.rank <= MAX_RANK:
            raise RequestError(f"The rank is {self.rank!r}; it must be a whole number from 1 to {MAX_RANK}.")
        if self.alpha is not None and not 0.0 < self.alpha <= 100_000.0:
            raise RequestError(f"Alpha is {self.alpha!r}; it must be a number above 0, or left empty.")
        if not (self.unet or self.train_text):
            raise RequestError("Nothing would learn: choose the UNet, the text encoder or both.")

    @property
    def scale(self) -> float:
        """What the change of each layer is multiplied by."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


@dataclass(frozen=True)
class LoraTask:
    """The pairs in ``trained``, by ``unet.`` or ``text.``, their layer's name in files, and ``.down`` or ``.up``."""

    materials: Materials
    options: LoraOptions
    model: Model
    objective: Objective
    latents: Latents
    captions: Captions
    trained: Mapping[str, nn.Parameter]
    initial: Mapping[str, Tensor]

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
        """Each layer's pair and alpha in kohya's layout."""
        import torch

        alpha = self.options.scale * self.options.rank
        tensors = {}
        for name, tensor in trained.items():
            _, layer, part = name.split(".")
            tensors[f"{layer}.lora_{part}.weight"] = tensor
            tensors[f"{layer}.alpha"] = torch.tensor(alpha)
        return Weights(tensors, self._metadata(alpha))

    def _metadata(self, alpha: float) -> dict[str, str]:
        request, materials = self.materials.request, self.materials
        pictures = [item for item in materials.data.items if not item.is_class]
        tags = Counter(tag for item in pictures for tag in map(str.strip, item.caption.split(",")) if tag)
        said = {
            "modelspec.architecture": "stable-diffusion-v1/lora",
            "modelspec.prediction_type": self.model.prediction.value,
            "modelspec.resolution": f"{materials.data.size}x{materials.data.size}",
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(self.options.rank),
            "ss_network_alpha": f"{alpha:g}",
            "ss_base_model_version": "sd_v1",
            "ss_sd_model_name": materials.base.path.name,
            "ss_new_sd_model_hash": materials.base_sha256,
            "ss_output_name": request.name,
            "ss_num_train_images": str(sum(item.repeats for item in pictures)),
            "ss_steps": str(request.steps),
            "ss_learning_rate": f"{request.optimiser.rate:g}",
            "ss_seed": str(request.seed),
            "ss_resolution": f"({materials.data.size}, {materials.data.size})",
            "ss_tag_frequency": json.dumps({folder(request.data.folder).name: dict(tags.most_common())}),
        }
        if request.data.prefix:
            said["modelspec.trigger_phrase"] = request.data.prefix.strip(" ,")
        return said


def begin(options: LoraOptions, materials: Materials) -> Task:
    """Encode the pictures, freeze the model, and put a pair beside each layer that is to change."""
    from webui.networks.kernels import arrange
    from webui.networks.layer_names import TEXT_ENCODER, UNET
    from webui.training.captions import Captions
    from webui.training.latents import LatentCache
    from webui.training.low_rank import attach
    from webui.training.objective import Objective

    model, request, compute = materials.model, materials.request, materials.compute
    objective = Objective.of_frozen(model.prediction, model.noise_table, request.noise)
    cache = LatentCache(materials.cache, model.vae, materials.base_sha256, model.scale_factor, compute, materials.tell)
    latents = cache.latents(materials.data, flips=request.data.flip)
    networks = {UNET: model.unet, TEXT_ENCODER: model.text_encoder}
    for network in networks.values():
        network.to(compute.device, compute.dtype)
        arrange(network)
    pairs, first = attach(networks, _targets(options, model), options.rank, options.scale, request.seed)
    parts = {name: "text" if name.startswith("lora_te_") else "unet" for name in pairs}
    trained = {
        f"{parts[name]}.{name}.{side}": parameter
        for name, pair in pairs.items()
        for side, parameter in vars(pair).items()
    }
    values = {name: dict(zip(("down", "up"), both, strict=True)) for name, both in first.items()}
    return LoraTask(
        materials=materials,
        options=options,
        model=model,
        objective=objective,
        latents=latents,
        captions=Captions.of([item.caption for item in materials.data.items], model.tokenizer),
        trained=trained,
        initial={f"{parts[n]}.{n}.{side}": tensor for n, both in values.items() for side, tensor in both.items()},
    )


def _targets(options: LoraOptions, model: Model) -> dict[str, Target]:
    from webui.networks.layer_names import TEXT_ENCODER, lora_targets

    targets = lora_targets(model.unet, model.text_encoder, convolutions=options.convolutions, text=options.train_text)
    return {name: target for name, target in targets.items() if options.unet or target.network == TEXT_ENCODER}


@hookimpl
def register_training_kinds() -> list[TrainingKind]:
    """A LoRA."""
    return [
        TrainingKind(
            name="lora",
            label="LoRA",
            summary="Teach a small file that adds a subject or a style to a model; with class pictures: DreamBooth.",
            folder="lora",
            options=LoraOptions,
            begin=begin,
            defaults={"optimiser.rate": 2e-4, "steps": 1000, "batch_size": 2},
        )
    ]
