"""The layers of a model and what files of LoRA's family call them.

A file's names are never taken apart, because an underscore may stand for a dot: all names that a layer of *this*
network may have are made, and looked up.  Namings: kohya-ss/sd-scripts ``networks/lora.py`` (diffusers' paths with
underscores), huggingface diffusers ``loaders/lora_conversion_utils.py`` and peft (paths with dots), KohakuBlueleaf
LyCORIS and bghira/SimpleTuner (``lycoris_``), CompVis' own paths for either.

Called by ``networks/lora.py``, and by the trainer to name what it makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from webui.networks.clip import ClipTextEncoder
from webui.networks.unet import UNet, UNetConfig

UNET = "unet"
TEXT_ENCODER = "text_encoder"

_MATRICES = (nn.Linear, nn.Conv2d)
_WEIGHTED = (*_MATRICES, nn.LayerNorm, nn.GroupNorm, nn.Embedding)
_MIDDLE = 13
_UNET_PREFIXES = (
    "lora_unet_", "unet_", "unet_base_model_model_", "base_model_model_", "lycoris_", "diffusion_model_",
    "model_diffusion_model_", "lora_transformer_", "",
)  # fmt: skip
_TEXT_PREFIXES = (
    "lora_te_", "lora_te1_", "text_encoder_", "text_encoder_base_model_model_", "lycoris_text_encoder_",
    "text_encoders_clip_l_transformer_", "clip_l_transformer_", "cond_stage_model_transformer_",
)  # fmt: skip


class Target(NamedTuple):
    """One parameter that a file may change: ``unet`` or ``text_encoder``, its name, its shape."""

    network: str
    parameter: str
    shape: tuple[int, ...]

    @property
    def block(self) -> int | None:
        """Where its weight stands among :data:`webui.prompt.block_weights.BLOCKS`; None outside all blocks."""
        if self.network == TEXT_ENCODER:
            return 0
        if self.parameter.startswith("middle_block."):
            return _MIDDLE
        for prefix, first in (("input_blocks.", 1), ("output_blocks.", _MIDDLE + 1)):
            if self.parameter.startswith(prefix):
                return first + int(self.parameter.split(".")[1])
        return None


class Layer(NamedTuple):
    """A layer's weight and, if it has one, its bias."""

    weight: Target
    bias: Target | None


def lora_targets(
    unet: UNet, text_encoder: ClipTextEncoder, *, convolutions: bool = False, text: bool = True
) -> dict[str, Target]:
    """The weights that training changes, by the name that kohya's trainer gives their layer, in the networks' order.

    Always the linear layers and 1 x 1 projections of the UNet's transformers; with ``convolutions`` all layers of its
    ResBlocks and resamplers as well (LoCon); with ``text`` the linear layers of the text encoder.
    """
    targets = {
        "lora_unet_" + flat(path): layer.weight
        for path, layer in _unet_layers(unet, _MATRICES)
        if "attentions." in path or (convolutions and path.startswith(("down_blocks.", "mid_block.", "up_blocks.")))
    }
    if text:
        layers = _layers(text_encoder, TEXT_ENCODER, _MATRICES)
        targets |= {"lora_te_" + flat(path): layer.weight for path, layer in layers}
    return targets


def layer_names(unet: UNet, text_encoder: ClipTextEncoder) -> dict[str, Layer]:
    """Every name that a file may have for a layer with weights, with underscores for dots."""
    names: dict[str, Layer] = {}
    for path, layer in _unet_layers(unet, _WEIGHTED):
        own = layer.weight.parameter.removesuffix(".weight")
        for spelled in (path, path.removesuffix(".0") if path.endswith(".to_out.0") else path, own):
            names |= {prefix + flat(spelled): layer for prefix in _UNET_PREFIXES}
    for path, layer in _layers(text_encoder, TEXT_ENCODER, _WEIGHTED):
        for spelled in (path, path.removeprefix("text_model.")):  # transformers 5.6 leaves the level out
            names |= {prefix + flat(spelled): layer for prefix in _TEXT_PREFIXES}
    return names


def flat(path: str) -> str:
    """A path with underscores for dots."""
    return path.replace(".", "_")


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
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def _unet_layers(unet: UNet, kinds: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, Layer]]:
    """Each layer of these kinds by diffusers' path."""
    blocks = diffusers_blocks(unet.config)
    for path, layer in _layers(unet, UNET, kinds):
        parts = path.split(".")
        block = next(".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in blocks)
        inside = path[len(block) + 1 :]
        inside = _RESNET_LAYERS.get(inside, inside)
        yield f"{blocks[block]}.{inside}" if inside else blocks[block], layer


def _layers(network: nn.Module, name: str, kinds: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, Layer]]:
    """Each layer of these kinds by our own path."""
    for path, layer in network.named_modules():
        if isinstance(layer, kinds):
            held = dict(layer.named_parameters(recurse=False))
            weight, bias = (
                Target(name, f"{path}.{one}", tuple(held[one].shape)) if one in held else None
                for one in ("weight", "bias")
            )
            if weight is not None:
                yield path, Layer(weight, bias)
