"""The T2I-Adapter: a control picture -> what is added to the last block of each level of a UNet's way down.

Mou et al. 2023 (arXiv:2302.08453), with the parameter names of TencentARC/T2I-Adapter
``ldm/modules/encoders/adapter.py`` (``Adapter``).  It reads neither latent nor time, so one call serves all steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from webui.errors import CheckpointError
from webui.networks.kernels import Conv3x3
from webui.networks.unet import EncoderConfig, Openings

HINT_FACTOR = 8
"""Pixels of the control picture, in each direction, for one of the first feature (and of the latent)."""
BLOCKS = 2
"""ResBlocks a level of every published adapter; the shapes of a file do not tell."""


@dataclass(frozen=True)
class T2IAdapterConfig:
    """The sizes of an adapter; the defaults are those of the published ones for Stable Diffusion 1.

    ``channels`` are those of each level of the UNet.  ``hint_channels`` is 1 for grey control pictures.  ``kernel`` is
    the size of each block's second convolution; ``strided`` levels are halved by a convolution instead of a mean.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    hint_channels: int = 3
    kernel: int = 1
    strided: bool = False

    @classmethod
    def of(cls, encoder: EncoderConfig) -> T2IAdapterConfig:
        """The config of an adapter for UNets of this config."""
        return cls(channels=encoder.channels)

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> T2IAdapterConfig:
        """The config that fits tensors of these names and shapes.

        Raises CheckpointError for an adapter of another kind (light, style, SDXL).
        """
        blocks = {int(name.split(".")[1]) for name in shapes if name.startswith("body.")}
        unshuffled = shapes.get("conv_in.weight", (0, 0))[1]
        hint_channels, rest = divmod(unshuffled, HINT_FACTOR**2)
        ends = [f"body.{number}.block2.weight" for number in range(BLOCKS - 1, len(blocks), BLOCKS)]
        if rest or hint_channels not in (1, 3) or not ends or any(len(shapes.get(name, ())) != 4 for name in ends):
            raise CheckpointError(
                "This is no full T2I-Adapter for Stable Diffusion 1: expected conv_in.weight of 64 or 192 input "
                f"channels and {BLOCKS} blocks a level, found {unshuffled} and {len(blocks)} blocks in all."
            )
        return cls(
            channels=tuple(shapes[name][0] for name in ends),
            hint_channels=hint_channels,
            kernel=shapes[ends[0]][2],
            strided=any(name.endswith(".down_opt.op.weight") for name in shapes),
        )


class T2IAdapter(nn.Module):
    """The network.  It holds its weights and nothing else; a call leaves it as it was."""

    def __init__(self, config: T2IAdapterConfig) -> None:
        """Build the layers; on the ``meta`` device no memory is touched."""
        super().__init__()
        self.config = config
        first = config.channels[0]
        self.conv_in = Conv3x3(config.hint_channels * HINT_FACTOR**2, first)
        self.body = nn.ModuleList()
        for before, width in zip((first, *config.channels), config.channels, strict=False):
            self.body.append(_ResBlock(before, width, config, halved=len(self.body) > 0))
            self.body.extend(_ResBlock(width, width, config, halved=False) for _ in range(BLOCKS - 1))

    @classmethod
    def for_unet(cls, encoder: EncoderConfig, seed: int = 0) -> T2IAdapter:
        """An adapter to train for UNets of this config: torch's own initialisation from ``seed``.

        torch's generator stays as it was.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(T2IAdapterConfig.of(encoder))

    def forward(self, hint: Tensor) -> tuple[Tensor, ...]:
        """One feature a level, (B, channels, h / 2^level, w / 2^level) rounded up, in the dtype of the weights.

        ``hint`` (B, 3, 8 h, 8 w) is the control picture in [0, 1], RGB; adapters of grey pictures read its mean.
        Raises ValueError when its sides are no multiples of 8.
        """
        if hint.shape[2] % HINT_FACTOR or hint.shape[3] % HINT_FACTOR:
            raise ValueError(f"The control picture is {tuple(hint.shape[2:])}; its sides must be multiples of 8.")
        weight = self.conv_in.weight
        hint = hint.mean(dim=1, keepdim=True) if self.config.hint_channels == 1 else hint
        hidden = F.pixel_unshuffle(hint.to(weight.device, weight.dtype), HINT_FACTOR)
        hidden = self.conv_in(hidden.contiguous(memory_format=torch.channels_last))
        features = []
        for number, block in enumerate(self.body, start=1):
            hidden = block(hidden)
            if number % BLOCKS == 0:
                features.append(hidden)
        return tuple(features)


def openings(features: Sequence[Tensor], unet: EncoderConfig, weight: float = 1.0) -> Openings:
    """The openings of a UNet of this config with an adapter's features, times ``weight``.

    Each feature joins what the last input block of its level leaves, before that is halved, as in the paper's
    equation 2.  Raises CheckpointError when the adapter was made for a UNet of other widths.
    """
    widths = tuple(feature.shape[1] for feature in features)
    if widths != unet.channels:
        raise CheckpointError(f"This T2I-Adapter has features of {widths} channels; the model needs {unet.channels}.")
    places = zip(unet.last_input_blocks, features, strict=True)
    return Openings(input_residuals={place: weight * feature for place, feature in places})


class _ResBlock(nn.Module):
    def __init__(self, before: int, width: int, config: T2IAdapterConfig, *, halved: bool) -> None:
        super().__init__()
        self.in_conv = nn.Conv2d(before, width, config.kernel, padding=config.kernel // 2) if before != width else None
        self.block1 = Conv3x3(width, width)
        self.block2 = nn.Conv2d(width, width, config.kernel, padding=config.kernel // 2)
        self.down_opt = _Halving(before, config.strided) if halved else None

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.down_opt is None else self.down_opt(x)
        x = x if self.in_conv is None else self.in_conv(x)
        total: Tensor = self.block2(F.relu(self.block1(x))) + x
        return total


class _Halving(nn.Module):
    """Half the height and width, rounded up as in the UNet."""

    def __init__(self, width: int, strided: bool) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, 2, 1) if strided else nn.AvgPool2d(2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        halved: Tensor = self.op(x)
        return halved


def to_diffusers(names: Sequence[str]) -> dict[str, str]:
    """Diffusers' name of each tensor (huggingface/diffusers ``models/adapter.py``), which halves without weights."""
    return {name: _to_diffusers(name) for name in names}


def from_diffusers(names: Sequence[str]) -> dict[str, str]:
    """Our name of each tensor of a diffusers T2I-Adapter.  Raises CheckpointError for one of another kind."""
    return {name: _from_diffusers(name) for name in names}


def _to_diffusers(name: str) -> str:
    kind, *rest = name.split(".")
    if kind != "body":
        return f"adapter.{name}"
    level, number = divmod(int(rest[0]), BLOCKS)
    inner = ".".join(rest[1:])
    place = inner if inner.startswith("in_conv.") else f"resnets.{number}.{inner}"
    return f"adapter.body.{level}.{place}"


def _from_diffusers(name: str) -> str:
    match name.split("."):
        case ["adapter", "conv_in", kind]:
            return f"conv_in.{kind}"
        case ["adapter", "body", level, "in_conv", kind] if level.isdigit():
            return f"body.{BLOCKS * int(level)}.in_conv.{kind}"
        case ["adapter", "body", level, "resnets", number, layer, kind] if level.isdigit() and number.isdigit():
            return f"body.{BLOCKS * int(level) + int(number)}.{layer}.{kind}"
    raise CheckpointError(f'The tensor "{name}" is not that of a full T2I-Adapter of diffusers.')
