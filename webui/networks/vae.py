"""The VAE: pictures <-> latents an eighth as wide and high.

``AutoencoderKL`` of Rombach et al. 2022 (arXiv:2112.10752) with the parameter names of CompVis/stable-diffusion
``ldm/modules/diffusionmodules/model.py``, which are those of an SD1 file below ``first_stage_model.``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from webui.errors import CheckpointError
from webui.networks.attention import attention
from webui.networks.kernels import Conv3x3


@dataclass(frozen=True)
class VAEConfig:
    """The sizes of a VAE; the defaults are those of Stable Diffusion 1.

    ``channels`` are those of each level, full resolution first; each further level halves width and height.
    """

    channels: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    latent_channels: int = 4
    inner_channels: int = 4
    norm_groups: int = 32

    @property
    def factor(self) -> int:
        """How many pixels wide and high a latent pixel is."""
        return int(2 ** (len(self.channels) - 1))

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]], norm_groups: int | None = None) -> VAEConfig:
        """The config that fits tensors of these names (``encoder.*``, ``decoder.*``, ``quant_conv.*``) and shapes.

        Norm groups leave no trace in the shapes: None means 32.  Raises CheckpointError when a tensor that tells a
        size is missing.
        """
        groups = norm_groups or 32
        try:
            levels = _count(shapes, "encoder.down.")
            channels = tuple(shapes[f"encoder.down.{level}.block.0.conv2.weight"][0] for level in range(levels))
            blocks = _count(shapes, "encoder.down.0.block.")
            latent, inner = shapes["post_quant_conv.weight"][1], shapes["post_quant_conv.weight"][0]
        except (KeyError, IndexError) as error:
            raise CheckpointError(f"The VAE is incomplete: {error} is missing or has another shape.") from error
        if not channels or any(width % groups for width in channels):
            raise CheckpointError(f"A VAE with {channels} channels cannot be normalised in {groups} groups.")
        return cls(channels, blocks, latent, inner, groups)


def _count(names: Iterable[str], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)})


@dataclass(frozen=True)
class Posterior:
    """The normal distribution of latents that a picture encodes to: ``mean`` and ``logvar``, (B, 4, H/8, W/8) each."""

    mean: Tensor
    logvar: Tensor

    @property
    def mode(self) -> Tensor:
        """The most likely latent."""
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """The latent for unit noise of the same shape."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise.to(self.mean)


class AutoencoderKL(nn.Module):
    """Pictures to latents and back.  Latents are unscaled: the family's ``scale_factor`` is the caller's."""

    def __init__(self, config: VAEConfig) -> None:
        """Build the layers; on the ``meta`` device no memory is touched."""
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.inner_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.inner_channels, 1)

    def encode(self, pixels: Tensor) -> Posterior:
        """The latents of pictures (B, 3, H, W) in [-1, 1], H and W multiples of ``config.factor``, in pixels' dtype."""
        moments = self.quant_conv(self.encoder(self._enter(pixels))).to(pixels.dtype)
        mean, logvar = moments.chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(-30.0, 20.0))

    def decode(self, latent: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), about [-1, 1] (not clipped), from latents (B, 4, H/8, W/8), in the latents' dtype."""
        picture: Tensor = self.decoder(self.post_quant_conv(self._enter(latent)))
        return picture.to(latent.dtype)

    def _enter(self, x: Tensor) -> Tensor:
        weight = self.post_quant_conv.weight
        return x.to(weight.device, weight.dtype, memory_format=torch.channels_last)


class _Encoder(nn.Module):
    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        channels, groups = config.channels, config.norm_groups
        self.conv_in = Conv3x3(3, channels[0])
        self.down = nn.ModuleList()
        before = channels[0]
        for level, width in enumerate(channels):
            last = level == len(channels) - 1
            self.down.append(_Level(before, width, config.blocks, groups, None if last else "downsample"))
            before = width
        self.mid = _Middle(before, groups)
        self.norm_out = _norm(before, groups)
        self.conv_out = Conv3x3(before, 2 * config.inner_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return _finish(self, self.mid(x))


class _Decoder(nn.Module):
    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        channels, groups = config.channels, config.norm_groups
        deepest = channels[-1]
        self.conv_in = Conv3x3(config.inner_channels, deepest)
        self.mid = _Middle(deepest, groups)
        self.up = nn.ModuleList()  # up.0 is the full resolution, as in the checkpoint, though it runs last
        for level, width in enumerate(channels):
            before = channels[min(level + 1, len(channels) - 1)]
            self.up.append(_Level(before, width, config.blocks + 1, groups, "upsample" if level else None))
        self.norm_out = _norm(channels[0], groups)
        self.conv_out = Conv3x3(channels[0], 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return _finish(self, x)


def _finish(half: _Encoder | _Decoder, x: Tensor) -> Tensor:
    finished: Tensor = half.conv_out(_silu(half.norm_out(x)))
    return finished


class _Level(nn.Module):
    """ResNet blocks of one resolution, then the step to the next: ``downsample``, ``upsample`` or None."""

    def __init__(self, before: int, width: int, blocks: int, groups: int, step: str | None) -> None:
        super().__init__()
        self.block = nn.ModuleList(_ResnetBlock(width if i else before, width, groups) for i in range(blocks))
        self.step = step
        if step == "downsample":
            self.downsample = _Downsample(width)
        elif step == "upsample":
            self.upsample = _Upsample(width)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return getattr(self, self.step)(x) if self.step else x


class _Middle(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.block_1 = _ResnetBlock(width, width, groups)
        self.attn_1 = _AttentionBlock(width, groups)
        self.block_2 = _ResnetBlock(width, width, groups)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return mixed


class _ResnetBlock(nn.Module):
    def __init__(self, before: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm1 = _norm(before, groups)
        self.conv1 = Conv3x3(before, width)
        self.norm2 = _norm(width, groups)
        self.conv2 = Conv3x3(width, width)
        self.nin_shortcut = nn.Conv2d(before, width, 1) if before != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(_silu(self.norm1(x)))
        inner = self.conv2(_silu(self.norm2(inner)))
        total: Tensor = inner.add_(self.nin_shortcut(x))
        return total


class _AttentionBlock(nn.Module):
    """Self-attention with a single head over all places."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = _norm(width, groups)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (project(normed).permute(0, 2, 3, 1).flatten(1, 2) for project in (self.q, self.k, self.v))
        gathered = attention(q, k, v, heads=1).transpose(1, 2).view(x.shape)  # channels_last, like x
        projected: Tensor = self.proj_out(gathered)
        return x + projected


class _Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        halved: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))  # right and bottom only, as it was trained
        return halved


class _Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = Conv3x3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        doubled: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return doubled


def _norm(width: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, width, eps=1e-6)


def _silu(x: Tensor) -> Tensor:
    return F.silu(x, inplace=True)
