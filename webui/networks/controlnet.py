"""The ControlNet: a control picture beside the noisy latent -> what is added to a UNet's skips and middle.

Zhang et al. 2023 (arXiv:2302.05543): a trainable copy of the UNet's way down and middle, joined to the frozen original
by 1 x 1 convolutions that start at zero.  Parameter names are those of lllyasviel/ControlNet ``cldm/cldm.py``, which
are those of its files below ``control_model.``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from torch import Tensor, nn

from webui.errors import CheckpointError
from webui.networks.kernels import Conv3x3
from webui.networks.unet import Encoder, EncoderConfig, Openings, UNet

HINT_FACTOR = 8
"""Pixels of the control picture, in each direction, for one of the latent."""
_HINT_WIDTHS = (16, 32, 96, 256)  # of the hint block, which halves the picture before each but the first
_LAST_HINT = 4 * len(_HINT_WIDTHS) - 2


@dataclass(frozen=True)
class ControlNetConfig(EncoderConfig):
    """The sizes of a ControlNet: those of its UNet's way down, and the channels of the control picture."""

    hint_channels: int = 3

    @classmethod
    def of(cls, encoder: EncoderConfig, hint_channels: int = 3) -> ControlNetConfig:
        """The config of a ControlNet for UNets of this config."""
        shared = {field.name: getattr(encoder, field.name) for field in fields(EncoderConfig)}
        return cls(**shared, hint_channels=hint_channels)

    @classmethod
    def from_shapes(
        cls, shapes: Mapping[str, tuple[int, ...]], heads: int | None = None, norm_groups: int | None = None
    ) -> ControlNetConfig:
        """The config that fits tensors of these names (without ``control_model.``) and shapes.

        Heads and groups as in :meth:`EncoderConfig.from_shapes`.  Raises CheckpointError when a tensor that tells a
        size is missing, or for a ControlNet of another kind.
        """
        if "input_hint_block.0.weight" not in shapes:
            raise CheckpointError("This is no ControlNet: input_hint_block.0.weight is missing.")
        encoder = EncoderConfig.from_shapes(shapes, heads, norm_groups)
        return cls.of(encoder, shapes["input_hint_block.0.weight"][1])


@dataclass(frozen=True)
class Control:
    """What a ControlNet adds: ``skips`` in the order of the UNet's input blocks, and ``middle``."""

    skips: tuple[Tensor, ...]
    middle: Tensor

    def openings(self, weight: float = 1.0) -> Openings:
        """The UNet's openings with these residuals, times ``weight``."""
        return Openings(
            skip_residuals=tuple(weight * skip for skip in self.skips), middle_residual=weight * self.middle
        )


class ControlNet(Encoder):
    """The network.  It holds its weights and nothing else; a call leaves it as it was."""

    def __init__(self, config: ControlNetConfig) -> None:
        """Build the layers; on the ``meta`` device no memory is touched."""
        super().__init__(config)
        self.config = config
        self.input_hint_block = _hint_block(config)
        self.zero_convs = nn.ModuleList(_one_by_one(width) for width in self.skip_channels)
        self.middle_block_out = _one_by_one(config.channels[-1])

    @classmethod
    def from_unet(cls, unet: UNet, seed: int = 0) -> ControlNet:
        """A ControlNet to train for ``unet``: its weights copied, joined by zeros, so that it changes nothing yet.

        The layers that read the control picture are torch's own initialisation from ``seed``; torch's generator stays
        as it was.  Same device and dtype as ``unet``; gradients are on.
        """
        with torch.device("meta"):
            network = cls(ControlNetConfig.of(unet.config))
        source, like = unet.state_dict(), next(unet.parameters())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            drawn = _hint_block(network.config).state_dict(prefix="input_hint_block.")
        joints = ("zero_convs.", "middle_block_out.", f"input_hint_block.{_LAST_HINT}.")
        weights = {}
        for name, tensor in network.state_dict().items():
            if name.startswith(joints):
                weights[name] = torch.zeros(tensor.shape, dtype=like.dtype, device=like.device)
            else:
                weights[name] = (drawn[name] if name in drawn else source[name]).detach().clone().to(like)
        network.load_state_dict(weights, assign=True)
        return network.requires_grad_(True)

    def hint_features(self, hint: Tensor) -> Tensor:
        """What is added to the first block, (B, model_channels, h, w).

        ``hint`` (B, 3, 8 h, 8 w) is the control picture in [0, 1], RGB.  The result depends on
        nothing else, so one call serves all steps of a picture.
        """
        weight = next(self.parameters())
        features: Tensor = self.input_hint_block(
            hint.to(weight.device, weight.dtype, memory_format=torch.channels_last)
        )
        return features

    def control(self, x: Tensor, features: Tensor, timesteps: Tensor, context: Tensor) -> Control:
        """The residuals, in the dtype of the weights, for :meth:`hint_features` of the latent's size.

        ``x`` (B, C, h, w), ``timesteps`` (B,) and ``context`` (B, T, D) are what the UNet is called with; the features'
        batch size is that or 1.  Raises ValueError when the control picture is of another size than the latent.
        """
        if features.shape[2:] != x.shape[2:]:
            found, wanted = ([HINT_FACTOR * side for side in shape[2:]] for shape in (features.shape, x.shape))
            raise ValueError(f"The control picture has {found} rows and columns; this latent needs {wanted}.")
        below = self.encoded(x, timesteps, context, Openings(input_residuals={0: features}))
        skips = tuple(joint(skip) for joint, skip in zip(self.zero_convs, below.skips, strict=True))
        return Control(skips, self.middle_block_out(below.middle))

    def forward(self, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor) -> Control:
        """:meth:`control` for a control picture ``hint`` (B or 1, 3, 8 h, 8 w) in [0, 1], RGB."""
        return self.control(x, self.hint_features(hint), timesteps, context)


def _hint_block(config: ControlNetConfig) -> nn.Sequential:
    layers: list[nn.Module] = [Conv3x3(config.hint_channels, _HINT_WIDTHS[0]), nn.SiLU()]
    for width, wider in pairwise(_HINT_WIDTHS):
        halving = nn.Conv2d(width, wider, 3, stride=2, padding=1)
        layers += [Conv3x3(width, width), nn.SiLU(), halving, nn.SiLU()]
    return nn.Sequential(*layers, Conv3x3(_HINT_WIDTHS[-1], config.model_channels))


def _one_by_one(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 1))


_RESNET_LAYERS = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_LAYER_NAMES = {theirs: ours for ours, theirs in _RESNET_LAYERS.items()}


def to_diffusers(names: Iterable[str], config: EncoderConfig) -> dict[str, str]:
    """Diffusers' name of each tensor of a ControlNet (huggingface/diffusers ``models/controlnets/controlnet.py``).

    Raises CheckpointError for a name that is not a ControlNet's.
    """
    blocks = _block_names(len(config.channels), len(config.input_depths[0]))
    return {name: _renamed(name, blocks, _RESNET_LAYERS) for name in names}


def from_diffusers(names: Iterable[str]) -> dict[str, str]:
    """Our name of each tensor of a diffusers ControlNet; the counts of blocks are read off the names.

    Raises CheckpointError for a name that is not a ControlNet's.
    """
    names = list(names)
    found = [re.match(r"down_blocks\.(\d+)\.resnets\.(\d+)\.", name) for name in names]
    numbers = [(int(match[1]), int(match[2])) for match in found if match]
    if not numbers:
        raise CheckpointError("This is no ControlNet of diffusers: it has no down_blocks.")
    levels, layers = (max(number) + 1 for number in zip(*numbers, strict=True))
    blocks = {theirs: ours for ours, theirs in _block_names(levels, layers).items()}
    return {name: _renamed(name, blocks, _LAYER_NAMES) for name in names}


def _block_names(levels: int, layers: int) -> dict[str, str]:
    """Diffusers' name of each block, by ours, for so many ResBlocks a level."""
    embedding = "controlnet_cond_embedding"
    names = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "middle_block.0": "mid_block.resnets.0",
        "middle_block.1": "mid_block.attentions.0",
        "middle_block.2": "mid_block.resnets.1",
        "middle_block_out.0": "controlnet_mid_block",
        "input_hint_block.0": f"{embedding}.conv_in",
        f"input_hint_block.{_LAST_HINT}": f"{embedding}.conv_out",
    }
    names |= {f"input_hint_block.{2 * k + 2}": f"{embedding}.blocks.{k}" for k in range(_LAST_HINT // 2 - 1)}
    for level in range(levels):
        first = 1 + level * (layers + 1)
        names |= {f"input_blocks.{first + j}.0": f"down_blocks.{level}.resnets.{j}" for j in range(layers)}
        names |= {f"input_blocks.{first + j}.1": f"down_blocks.{level}.attentions.{j}" for j in range(layers)}
        names[f"input_blocks.{first + layers}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
    names |= {f"zero_convs.{n}.0": f"controlnet_down_blocks.{n}" for n in range(levels * (layers + 1))}
    return names


def _renamed(name: str, blocks: Mapping[str, str], layers: Mapping[str, str]) -> str:
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        block = ".".join(parts[:length])
        if block in blocks:
            layer = ".".join(parts[length:-1])
            return ".".join(filter(None, (blocks[block], layers.get(layer, layer), parts[-1])))
    raise CheckpointError(f'The tensor "{name}" is not that of a ControlNet of the SD1 kind.')
