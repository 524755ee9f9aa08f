"""Low-rank changes of a network's weights: which layers they reach, what files call those, and the changed network.

LoRA, Hu et al. 2021 (arXiv:2106.09685): a layer's weight W becomes W + m * alpha / r * up @ down.  A file's names are
never taken apart, because an underscore may stand for a dot: all names that a layer of *this* network may have are
made, and looked up.  Namings: kohya-ss/sd-scripts ``networks/lora.py`` (diffusers' paths with underscores), huggingface
diffusers ``loaders/lora_conversion_utils.py`` and peft (paths with dots), CompVis' own paths for either.

Called by ``conditioning/lora.py`` to use files and by the trainer to make them.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from webui.networks.clip import ClipTextEncoder
from webui.networks.unet import UNet, UNetConfig

Network = TypeVar("Network", bound=nn.Module)
UNET = "unet"
TEXT_ENCODER = "text_encoder"


class Target(NamedTuple):
    """One weight that a low-rank pair may change: ``unet`` or ``text_encoder``, its parameter's name, its shape."""

    network: str
    parameter: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LowRank:
    """A pair ``down`` (r, in, ...) and ``up`` (out, r, ...); ``scale`` is alpha / r, 1 where a file has no alpha."""

    down: Tensor
    up: Tensor
    scale: float = 1.0

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether the change has as many outputs and inputs as a weight of this shape, and the pair one rank."""
        rank, inputs = self.down.shape[0], self.down.shape[1:].numel()
        return self.up.shape[0] == shape[0] and self.up.shape[1:].numel() == rank and inputs == math.prod(shape[1:])

    def delta(self, shape: Sequence[int], ranks: int | None = None, weight: float = 1.0) -> Tensor:
        """``weight`` times the change of a weight of this shape, float32.

        ``ranks`` keeps only the first so many of the pair.
        """
        up = self.up.float().flatten(1)[:, :ranks] * (self.scale * weight)  # the small factor, not the product
        return (up @ self.down.float().flatten(1)[:ranks]).view(*shape)


@dataclass(frozen=True)
class Fitted:
    """A file's pairs that change something here, and how its tensors fit: so many used, these unknown or misshapen."""

    pairs: Mapping[Target, LowRank]
    used: int
    unknown: tuple[str, ...]
    misshapen: tuple[str, ...]


class Use(NamedTuple):
    """A fitted file and how strongly it acts on each network; ``ranks`` as in :meth:`LowRank.delta`."""

    fitted: Fitted
    text_weight: float
    unet_weight: float
    ranks: int | None = None

    def weight_on(self, network: str) -> float:
        """The weight for ``unet`` or ``text_encoder``."""
        return self.unet_weight if network == UNET else self.text_weight


def lora_targets(
    unet: UNet, text_encoder: ClipTextEncoder, *, convolutions: bool = False, text: bool = True
) -> dict[str, Target]:
    """The weights that training changes, by the name that kohya's trainer gives their layer, in the networks' order.

    Always the linear layers and 1 x 1 projections of the UNet's transformers; with ``convolutions`` all layers of its
    ResBlocks and resamplers as well (LoCon); with ``text`` the linear layers of the text encoder.
    """
    targets = {
        _kohya_unet(path): target
        for path, target in _unet_layers(unet)
        if "attentions." in path or (convolutions and path.startswith(("down_blocks.", "mid_block.", "up_blocks.")))
    }
    if text:
        targets |= {"lora_te_" + _flat(path): target for path, target in _text_layers(text_encoder)}
    return targets


def fit(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], unet: UNet, text_encoder: ClipTextEncoder
) -> Fitted:
    """What a file's tensors change in these networks.

    A layer with further tensors than a pair and its alpha (DoRA, LoHa, ...) is of a kind not known here: left out, and
    its tensors are unknown.  Without ``alpha`` the scale is 1, or what peft's ``lora_adapter_metadata`` says.
    """
    names = _layer_names(unet, text_encoder)
    pairs: dict[Target, LowRank] = {}
    used: list[str] = []
    misshapen: list[str] = []
    for layer, parts in _layers_in(tensors).items():
        target = names.get(_flat(layer).replace("_processor_", "_"))
        if target is None or target in pairs or not {"down", "up"} <= parts.keys() or parts.keys() - _PARTS.keys():
            continue
        pair = _pair({part: tensors[name] for part, name in parts.items()}, metadata, layer)
        if pair is not None and pair.fits(target.shape):
            pairs[target] = pair
            used += parts.values()
        else:
            misshapen += parts.values()
    known = {*used, *misshapen}
    return Fitted(pairs, len(used), tuple(name for name in tensors if name not in known), tuple(misshapen))


class Deltas(Mapping[str, Tensor]):
    """The summed change of each parameter of one network by several files; each is computed when it is asked for."""

    def __init__(self, network: str, uses: Sequence[Use]) -> None:
        """Changes of ``unet`` or ``text_encoder``; a use whose weight is 0 there changes nothing."""
        self._parts: dict[str, list[tuple[LowRank, Target, float, int | None]]] = {}
        for use in uses:
            weight = use.weight_on(network)
            for target, pair in use.fitted.pairs.items():
                if target.network == network and weight:
                    self._parts.setdefault(target.parameter, []).append((pair, target, weight, use.ranks))

    def __getitem__(self, parameter: str) -> Tensor:
        """The change, float32, in the parameter's shape."""
        changes = [pair.delta(target.shape, ranks, weight) for pair, target, weight, ranks in self._parts[parameter]]
        return sum(changes[1:], start=changes[0])

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def merged(network: Network, deltas: Mapping[str, Tensor]) -> Network:
    """A network with ``deltas`` added to the parameters they name; the given one is left as it is, to the bit.

    It shares every other tensor with the given one.  Sums are taken in float32 and rounded once to the parameter's own
    dtype; its arrangement in memory (channels last) is kept.  Without deltas the given network itself comes back.
    """
    if not deltas:
        return network
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    changed = copy.deepcopy(network, memo=dict(shared))
    with torch.no_grad():
        for name, delta in deltas.items():
            layer, _, attribute = name.rpartition(".")
            before = network.get_parameter(name)
            after = torch.empty_like(before)
            torch.add(before, delta, out=after)  # added in float32, also where the weights are not
            setattr(changed.get_submodule(layer), attribute, nn.Parameter(after, requires_grad=before.requires_grad))
    return changed


def diffusers_blocks(config: UNetConfig) -> dict[str, str]:
    """Our name of each part of the UNet -> diffusers' (``input_blocks.1.0`` -> ``down_blocks.0.resnets.0``)."""
    blocks = {
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "middle_block.0": "mid_block.resnets.0",
        f"middle_block.{2 if config.middle_depth else 1}": "mid_block.resnets.1",
    }
    if config.middle_depth:
        blocks["middle_block.1"] = "mid_block.attentions.0"
    number = 0
    for level, depths in enumerate(config.input_depths):
        if level:
            number += 1
            blocks[f"input_blocks.{number}.0.op"] = f"down_blocks.{level - 1}.downsamplers.0.conv"
        for index, depth in enumerate(depths):
            number += 1
            blocks |= _block_pair(f"input_blocks.{number}", f"down_blocks.{level}", index, depth)
    number = -1
    for level, depths in enumerate(config.output_depths):
        for index, depth in enumerate(depths):
            number += 1
            blocks |= _block_pair(f"output_blocks.{number}", f"up_blocks.{level}", index, depth)
        blocks[f"output_blocks.{number}.{2 if depths[-1] else 1}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
    return blocks


def _block_pair(ours: str, theirs: str, index: int, depth: int) -> dict[str, str]:
    pair = {f"{ours}.0": f"{theirs}.resnets.{index}"}
    if depth:
        pair[f"{ours}.1"] = f"{theirs}.attentions.{index}"
    return pair


_RESNET_LAYERS = {
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def _unet_layers(unet: UNet) -> Iterator[tuple[str, Target]]:
    """Each linear layer and convolution by diffusers' path."""
    blocks = diffusers_blocks(unet.config)
    for path, target in _layers(unet, UNET):
        parts = path.split(".")
        block = next(".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in blocks)
        layer = path[len(block) + 1 :]
        layer = _RESNET_LAYERS.get(layer, layer)
        yield f"{blocks[block]}.{layer}" if layer else blocks[block], target


def _text_layers(text_encoder: ClipTextEncoder) -> Iterator[tuple[str, Target]]:
    return _layers(text_encoder, TEXT_ENCODER)


def _layers(network: nn.Module, name: str) -> Iterator[tuple[str, Target]]:
    """Each linear layer and convolution by our own path."""
    for path, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            yield path, Target(name, f"{path}.weight", tuple(layer.weight.shape))


def _flat(path: str) -> str:
    return path.replace(".", "_")


def _kohya_unet(path: str) -> str:
    return "lora_unet_" + _flat(path)


_UNET_PREFIXES = (
    "lora_unet_", "unet_", "unet_base_model_model_", "base_model_model_", "lycoris_", "diffusion_model_", "",
)  # fmt: skip
_TEXT_PREFIXES = ("lora_te_", "lora_te1_", "text_encoder_", "text_encoder_base_model_model_")


def _layer_names(unet: UNet, text_encoder: ClipTextEncoder) -> dict[str, Target]:
    """Every name that a file may have for a layer, with underscores for dots."""
    names: dict[str, Target] = {}
    for path, target in _unet_layers(unet):
        own = target.parameter.removesuffix(".weight")
        for spelled in (path, path.removesuffix(".0") if path.endswith(".to_out.0") else path, own):
            names |= {prefix + _flat(spelled): target for prefix in _UNET_PREFIXES}
    for path, target in _text_layers(text_encoder):
        for spelled in (path, path.removeprefix("text_model.")):  # transformers 5.6 leaves the level out
            names |= {prefix + _flat(spelled): target for prefix in _TEXT_PREFIXES}
    return names


_PARTS = {
    "down": re.compile(r"(?:\.lora_down|\.lora_A(?:\.\w+)?|[._]lora\.down|\.lora_linear_layer\.down)\.weight$"),
    "up": re.compile(r"(?:\.lora_up|\.lora_B(?:\.\w+)?|[._]lora\.up|\.lora_linear_layer\.up)\.weight$"),
    "alpha": re.compile(r"\.alpha$"),
}
_OTHER_PART = re.compile(
    r"\.(?:lora_mid\.weight|dora_scale|lora_magnitude_vector(?:\.\w+)*|(?:hada|lokr|oft)_\w+|diff(?:_b)?|on_input"
    r"|[ab][12]\.weight|[wb]_norm|set_weight|bias_\w+)$"
)


def _layers_in(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """The file's tensors by layer, as the file calls it, and part; parts that no pair has stand by their own name."""
    layers: dict[str, dict[str, str]] = {}
    for name in tensors:
        for part, pattern in _PARTS.items():
            if found := pattern.search(name):
                layers.setdefault(name[: found.start()], {})[part] = name
                break
        else:
            if found := _OTHER_PART.search(name):
                layers.setdefault(name[: found.start()], {})[found[0]] = name
    return layers


def _pair(parts: Mapping[str, Tensor], metadata: Mapping[str, str], layer: str) -> LowRank | None:
    """The pair of a layer, None when its tensors are no matrices or its alpha no number."""
    down, up = parts["down"], parts["up"]
    if min(down.ndim, up.ndim) < 2 or not down.numel() or ("alpha" in parts and parts["alpha"].numel() != 1):
        return None
    alpha = float(parts["alpha"].item()) if "alpha" in parts else _stated_alpha(metadata, layer, len(down))
    return LowRank(down, up, 1.0 if alpha is None else alpha / len(down))


def _stated_alpha(metadata: Mapping[str, str], layer: str, rank: int) -> float | None:
    """The alpha that diffusers notes of a peft adapter in the file's metadata; None when it says nothing of it."""
    try:
        stated: Any = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        network = TEXT_ENCODER if layer.startswith(TEXT_ENCODER) else UNET
        patterns = stated.get(f"{network}.alpha_pattern") or {}
        alpha = next(
            (value for path, value in patterns.items() if layer.endswith(path)), stated.get(f"{network}.lora_alpha")
        )
        if alpha is None:
            return None
        return float(alpha) * (math.sqrt(rank) if stated.get(f"{network}.use_rslora") else 1.0)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None
