"""Model files -> networks: which kind a file is, what is built of it, and what stays loaded between jobs.

A file is known by the names and shapes of its tensors, never by its own name (but see :data:`POOLED`).  Published forms
are those of lllyasviel/ControlNet, huggingface/diffusers, TencentARC/T2I-Adapter, stabilityai/control-lora and
tencent-ailab/IP-Adapter.  Nothing in a file is run; what is no such file is refused in one sentence.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from webui.checkpoints.formats import WeightsFile
from webui.checkpoints.loaders import Header
from webui.device import Compute
from webui.errors import CheckpointError, NotFoundError
from webui.networks import controlnet, t2i_adapter
from webui.networks.controlnet import ControlNet, ControlNetConfig
from webui.networks.t2i_adapter import T2IAdapter, T2IAdapterConfig
from webui.networks.unet import EncoderConfig, UNet

from .light_adapter import LightAdapter, LightAdapterConfig

POOLED = "shuffle"
"""ControlNets with this in their file's name look at the whole picture at once (upstream reads it in a .yaml beside
them): their residuals are averaged over the picture."""
PREFIXES = ("control_model.", "controlnet.", "module.")
BUDGET = 4 * 2**30
"""Bytes of weights that stay loaded between jobs; the network used last always does."""
Shapes = Mapping[str, tuple[int, ...]]


class ModelKind(Enum):
    """What a model file is."""

    CONTROLNET = "ControlNet"
    CONTROL_LORA = "Control-LoRA"
    T2I_ADAPTER = "T2I-Adapter"
    IP_ADAPTER = "IP-Adapter"


_REFUSED = {
    "lllite_unet": "a ControlNet-LLLite, which is made for SDXL",
    "task_embedding": "a ControlNet Union, which is made for SDXL",
    "controlnet_blocks.": "a ControlNet for Flux or Stable Diffusion 3",
    "style_embedding": "a T2I style adapter, which is not supported",
}


def kind_of(header: Header, name: str) -> ModelKind:
    """The kind of a file.  Raises CheckpointError for a file of no kind that is known here."""
    names = list(header.tensors)
    for mark, spoken in _REFUSED.items():
        if any(mark in one for one in names):
            raise CheckpointError(f"{name} is {spoken}.")
    if any(one.split(".")[0] in ("image_proj", "ip_adapter") for one in names):
        return ModelKind.IP_ADAPTER
    if "lora_controlnet" in names:
        return ModelKind.CONTROL_LORA
    if any(one.endswith(("input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight")) for one in names):
        return ModelKind.CONTROLNET
    if any(one.removeprefix("adapter.").startswith("body.0.") for one in names):
        return ModelKind.T2I_ADAPTER
    raise CheckpointError(
        f"{name} is no ControlNet, Control-LoRA, T2I-Adapter or IP-Adapter that is known here; "
        f"it has {len(names)} tensors, the first called {names[0][:80] if names else 'nothing'}."
    )


@dataclass
class Networks:
    """What was built of model files, for as long as the files do not change and the memory lasts."""

    budget: int = BUDGET
    _held: OrderedDict[Hashable, tuple[Any, int]] = field(default_factory=OrderedDict)

    def get(self, path: Path, compute: Compute, what: Hashable, build: Callable[[], Any]) -> Any:
        """What ``build`` makes of a file, kept by the file, ``what`` it is and how it is computed.

        Raises NotFoundError when the file is gone.  What was used longest ago goes first.
        """
        try:
            stat = path.stat()
        except OSError:
            raise NotFoundError(f"The model file {path.name} is not there any more; press Refresh.") from None
        key = (path, stat.st_mtime_ns, stat.st_size, compute.dtype, str(compute.device), what)
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key][0]
        made = build()
        self._held[key] = (made, size_of(made))
        while len(self._held) > 1 and sum(size for _, size in self._held.values()) > self.budget:
            self._held.popitem(last=False)
        return made


def size_of(thing: Any) -> int:
    """Bytes of the tensors in a network or a table of tensors."""
    if isinstance(thing, nn.Module):
        return sum(tensor.numel() * tensor.element_size() for tensor in thing.state_dict().values())
    if isinstance(thing, Mapping):
        return sum(size_of(value) for value in thing.values())
    if isinstance(thing, Tensor):
        return thing.numel() * thing.element_size()
    return sum(size_of(value) for value in vars(thing).values()) if hasattr(thing, "__dict__") else 0


def tensors_of(file: WeightsFile, compute: Compute, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a file below ``prefix`` in the precision and on the device that it is computed with."""
    return file.load(prefix, compute.dtype, compute.device)


def load_controlnet(file: WeightsFile, unet: UNet, compute: Compute) -> ControlNet:
    """The ControlNet of a file, in the names of either program, for a UNet of this kind.  Raises CheckpointError."""
    weights = _plain_names(tensors_of(file, compute))
    if "difference" in weights:
        base = unet.state_dict()
        del weights["difference"]
        weights = {name: tensor + base[name].to(tensor) if name in base else tensor for name, tensor in weights.items()}
    return _built_controlnet(weights, unet, file.path.name)


def expand_control_lora(tensors: Mapping[str, Tensor], unet: UNet, name: str) -> ControlNet:
    """The ControlNet that a Control-LoRA's tensors make of a UNet's way down: weight + up @ down, by each name.

    What the file has whole (the hint block, the joints, norms and biases) is the file's.  Weights that the file does
    not touch are the UNet's own, not copies.
    """
    base = {key: tensor for key, tensor in unet.state_dict().items() if not key.startswith(("output_blocks.", "out."))}
    weights = {key: tensor for key, tensor in tensors.items() if not key.endswith((".up", ".down"))}
    weights.pop("lora_controlnet", None)
    for key in [key.removesuffix(".up") for key in tensors if key.endswith(".up")]:
        weight, up, down = base.get(f"{key}.weight"), tensors[f"{key}.up"], tensors.get(f"{key}.down")
        if weight is None or down is None or up.shape[0] * down.flatten(1).shape[1] != weight.numel():
            raise CheckpointError(f"{name} was made for another kind of model: its {key}.up does not fit the UNet.")
        change = (up.flatten(1).float() @ down.flatten(1).float()).reshape(weight.shape)
        weights[f"{key}.weight"] = (weight.float() + change).to(weight)
    return _built_controlnet({**base, **weights}, unet, name)


def load_t2i_adapter(file: WeightsFile, unet: UNet, compute: Compute) -> T2IAdapter | LightAdapter:
    """The T2I-Adapter of a file, full or light, in the names of either program.  Raises CheckpointError."""
    weights = tensors_of(file, compute)
    is_light = any(name.endswith("out_conv.weight") for name in weights)
    network: T2IAdapter | LightAdapter
    if is_light:
        weights = LightAdapter.renamed(weights)
        with torch.device("meta"):
            network = LightAdapter(LightAdapterConfig.from_shapes(_shapes(weights)))
    else:
        if any(".resnets." in name for name in weights):
            names = t2i_adapter.from_diffusers(list(weights))
            weights = {names[name]: tensor for name, tensor in weights.items()}
        with torch.device("meta"):
            network = T2IAdapter(T2IAdapterConfig.from_shapes(_shapes(weights)))
    widths = tuple(network.config.channels)
    if widths != unet.config.channels:
        raise CheckpointError(
            f"{file.path.name} has features of {widths} channels; this model needs {unet.config.channels}, that is, "
            "an adapter for another kind of Stable Diffusion."
        )
    assign(network, weights, file.path.name)
    return network


def _plain_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A ControlNet's tensors under CompVis' names."""
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    if "controlnet_cond_embedding.conv_in.weight" in weights:
        names = controlnet.from_diffusers(weights)
        weights = {names[name]: tensor for name, tensor in weights.items()}
    return weights


def _built_controlnet(weights: dict[str, Tensor], unet: UNet, name: str) -> ControlNet:
    config = ControlNetConfig.from_shapes(_shapes(weights), unet.config.heads, unet.config.norm_groups)
    _require_fitting(config, unet.config, name)
    with torch.device("meta"):
        network = ControlNet(config)
    assign(network, weights, name)
    return network


def _require_fitting(found: EncoderConfig, wanted: EncoderConfig, name: str) -> None:
    """Refuse a ControlNet for UNets of other sizes; an inpainting UNet's further channels do not count."""
    for one in fields(EncoderConfig):
        has, needs = getattr(found, one.name), getattr(wanted, one.name)
        if one.name not in ("in_channels", "linear_projection") and has != needs:
            raise CheckpointError(
                f"{name} was made for another kind of model: its {one.name.replace('_', ' ')} is {has}, "
                f"this model's is {needs}."
            )


def assign(network: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Give a network on the meta device its weights, all of them and no others."""
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in weights]
    if missing:
        raise CheckpointError(f"{name} is incomplete: {missing[0]} is missing ({len(missing)} tensors in all).")
    for key, tensor in wanted.items():
        if weights[key].shape != tensor.shape:
            found, expected = tuple(weights[key].shape), tuple(tensor.shape)
            raise CheckpointError(f"{name} does not fit: its {key} has the shape {found}, expected {expected}.")
    network.load_state_dict({key: weights[key] for key in wanted}, assign=True)
    network.requires_grad_(False).eval()


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}
