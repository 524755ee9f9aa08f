"""The same random weights in our networks and in those of diffusers and transformers.

The key map is our own, from the layout that huggingface/diffusers shows in
``scripts/convert_diffusers_to_original_stable_diffusion.py``.  Weights are drawn from a seed, with norms away from
(1, 0) and no layer left at zero, so that a wrong layer shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from webui.networks.clip import ClipTextConfig, ClipTextEncoder
from webui.networks.unet import UNet, UNetConfig
from webui.networks.vae import AutoencoderKL, VAEConfig

Shapes = dict[str, tuple[int, ...]]


def shapes_of(network: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def random_weights(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Uniform noise of deviation 1/sqrt(fan in) for weights; norm weights around 1, biases around 0."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _random(name, shape, generator) for name, shape in shapes.items()}


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = torch.empty(shape).uniform_(-1, 1, generator=generator)
    if "embedding" in name:
        return noise
    if len(shape) > 1:
        return noise.mul_(math.sqrt(3 / math.prod(shape[1:])))
    return noise.mul_(0.3).add_(1 if name.endswith("weight") else 0)


def built(make: Callable[[], nn.Module], seed: int = 0) -> Any:
    """A network of ours, built on meta as the loader does, with random weights."""
    with torch.device("meta"):
        network = make()
    network.load_state_dict(random_weights(shapes_of(network), seed), assign=True)
    return network.eval()


def unet(config: UNetConfig, seed: int = 0) -> UNet:
    return built(lambda: UNet(config), seed)


def vae(config: VAEConfig, seed: int = 0) -> AutoencoderKL:
    return built(lambda: AutoencoderKL(config), seed)


def clip(config: ClipTextConfig, seed: int = 0) -> ClipTextEncoder:
    return built(lambda: ClipTextEncoder(config), seed)


def diffusers_unet(ours: UNet) -> Any:
    """diffusers' UNet2DConditionModel with the same weights (the same memory)."""
    from diffusers import UNet2DConditionModel

    config = ours.config
    attends = [any(depths) for depths in config.input_depths]
    with torch.device("meta"):
        theirs = UNet2DConditionModel(
            in_channels=config.in_channels,
            out_channels=config.out_channels,
            block_out_channels=config.channels,
            down_block_types=["CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in attends],
            up_block_types=["CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends)],
            layers_per_block=len(config.input_depths[0]),
            transformer_layers_per_block=[max(max(depths), 1) for depths in config.input_depths],
            cross_attention_dim=config.context_channels,
            attention_head_dim=[config.heads_at(width) for width in config.channels],  # really the number of heads
            norm_num_groups=config.norm_groups,
            use_linear_projection=config.linear_projection,
        )
    theirs.load_state_dict(_renamed(ours, unet_names(config), UNET_LAYERS), assign=True)
    return theirs.eval()


def diffusers_vae(ours: AutoencoderKL) -> Any:
    """diffusers' AutoencoderKL with the same weights (the same memory)."""
    from diffusers import AutoencoderKL as Theirs

    config = ours.config
    levels = len(config.channels)
    with torch.device("meta"):
        theirs = Theirs(
            block_out_channels=config.channels,
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
            layers_per_block=config.blocks,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_groups,
        )
    weights = _renamed(ours, vae_names(config), VAE_LAYERS)
    projections = {name: w.flatten(1) for name, w in weights.items() if ".attentions.0." in name and w.ndim == 4}
    theirs.load_state_dict({**weights, **projections}, assign=True)
    return theirs.eval()


def transformers_clip(ours: ClipTextEncoder) -> Any:
    """transformers' CLIPTextModel with the same weights."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = ours.config
    with torch.device("meta"):
        theirs = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=config.vocabulary,
                hidden_size=config.width,
                intermediate_size=config.mlp_width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=config.positions,
                hidden_act="quick_gelu",
                eos_token_id=49407,
            )
        )
    getattr(theirs, "text_model", theirs).embeddings.position_ids = torch.arange(config.positions)[None]
    wants_prefix = any(name.startswith("text_model.") for name in theirs.state_dict())
    weights = {
        name if wants_prefix else name.removeprefix("text_model."): tensor for name, tensor in ours.state_dict().items()
    }
    theirs.load_state_dict(weights, assign=True)
    return theirs.eval()


UNET_LAYERS = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
VAE_LAYERS = {
    "nin_shortcut": "conv_shortcut",
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}


def unet_names(config: UNetConfig) -> dict[str, str]:
    """Our block name -> diffusers' name."""
    blocks, levels = len(config.input_depths[0]), len(config.channels)
    names = {
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "middle_block.0": "mid_block.resnets.0",
        "middle_block.1": "mid_block.attentions.0",
        "middle_block.2": "mid_block.resnets.1",
    }
    for i in range(levels):
        for j in range(blocks):
            names[f"input_blocks.{1 + i * (blocks + 1) + j}.0"] = f"down_blocks.{i}.resnets.{j}"
            names[f"input_blocks.{1 + i * (blocks + 1) + j}.1"] = f"down_blocks.{i}.attentions.{j}"
        names[f"input_blocks.{(i + 1) * (blocks + 1)}.0.op"] = f"down_blocks.{i}.downsamplers.0.conv"
        for j in range(blocks + 1):
            names[f"output_blocks.{i * (blocks + 1) + j}.0"] = f"up_blocks.{i}.resnets.{j}"
            names[f"output_blocks.{i * (blocks + 1) + j}.1"] = f"up_blocks.{i}.attentions.{j}"
        last, sub = i * (blocks + 1) + blocks, 2 if config.output_depths[i][-1] else 1
        names[f"output_blocks.{last}.{sub}.conv"] = f"up_blocks.{i}.upsamplers.0.conv"
    return names


def vae_names(config: VAEConfig) -> dict[str, str]:
    """Our block name -> diffusers' name."""
    levels = len(config.channels)
    names = {name: name for name in ("quant_conv", "post_quant_conv")}
    for half in ("encoder", "decoder"):
        names |= {f"{half}.{layer}": f"{half}.{layer}" for layer in ("conv_in", "conv_out")}
        names |= {
            f"{half}.norm_out": f"{half}.conv_norm_out",
            f"{half}.mid.block_1": f"{half}.mid_block.resnets.0",
            f"{half}.mid.attn_1": f"{half}.mid_block.attentions.0",
            f"{half}.mid.block_2": f"{half}.mid_block.resnets.1",
        }
    for i in range(levels):
        up = levels - 1 - i
        names[f"encoder.down.{i}.downsample.conv"] = f"encoder.down_blocks.{i}.downsamplers.0.conv"
        names[f"decoder.up.{up}.upsample.conv"] = f"decoder.up_blocks.{i}.upsamplers.0.conv"
        for j in range(config.blocks + 1):
            names[f"encoder.down.{i}.block.{j}"] = f"encoder.down_blocks.{i}.resnets.{j}"
            names[f"decoder.up.{up}.block.{j}"] = f"decoder.up_blocks.{i}.resnets.{j}"
    return names


def _renamed(ours: nn.Module, blocks: dict[str, str], layers: dict[str, str]) -> dict[str, Tensor]:
    return {_rename(name, blocks, layers): tensor for name, tensor in ours.state_dict().items()}


def _rename(name: str, blocks: dict[str, str], layers: dict[str, str]) -> str:
    block = max((block for block in blocks if name.startswith(f"{block}.")), key=len)
    layer, _, kind = name.removeprefix(f"{block}.").rpartition(".")
    is_resnet_or_vae_attention = "resnets" in blocks[block] or "attn_1" in block
    layer = layers.get(layer, layer) if is_resnet_or_vae_attention else layer
    return ".".join(part for part in (blocks[block], layer, kind) if part)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference over the deviation of what is expected."""
    return ((found.double() - expected.double()).abs().max() / expected.double().std()).item()
