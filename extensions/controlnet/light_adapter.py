"""The light T2I-Adapter, and the one for colours: a control picture -> one feature a level, by thinner blocks.

Mou et al. 2023 (arXiv:2302.08453), with the parameter names of TencentARC/T2I-Adapter
``ldm/modules/encoders/adapter.py`` (``Adapter_light``).  It is used as the full one, ``T2IAdapter``, is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from webui.errors import CheckpointError
from webui.networks.t2i_adapter import HINT_FACTOR


@dataclass(frozen=True)
class LightAdapterConfig:
    """The sizes: channels of each level's feature, of its inner blocks, how many these are, channels of the hint."""

    channels: tuple[int, ...]
    inner: tuple[int, ...]
    blocks: int
    hint_channels: int

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> LightAdapterConfig:
        """The config that fits tensors of these names and shapes.  Raises CheckpointError for another adapter."""
        levels = sorted({int(name.split(".")[1]) for name in shapes if name.startswith("body.")})
        try:
            hint_channels, rest = divmod(shapes["body.0.in_conv.weight"][1], HINT_FACTOR**2)
            channels = tuple(shapes[f"body.{level}.out_conv.weight"][0] for level in levels)
            inner = tuple(shapes[f"body.{level}.in_conv.weight"][0] for level in levels)
        except KeyError as error:
            raise CheckpointError(f"This is no light T2I-Adapter: {error} is missing.") from error
        blocks = len({name.split(".")[3] for name in shapes if name.startswith("body.0.body.")})
        if rest or hint_channels not in (1, 3):
            raise CheckpointError("This light T2I-Adapter is not one for Stable Diffusion 1.")
        return cls(channels, inner, blocks, hint_channels)


class LightAdapter(nn.Module):
    """The network.  It holds its weights and nothing else; a call leaves it as it was."""

    def __init__(self, config: LightAdapterConfig) -> None:
        """Build the layers; on the ``meta`` device no memory is touched."""
        super().__init__()
        self.config = config
        before = config.hint_channels * HINT_FACTOR**2
        self.body = nn.ModuleList()
        for width, inner in zip(config.channels, config.inner, strict=True):
            self.body.append(_Extractor(before, inner, width, config.blocks, halved=len(self.body) > 0))
            before = width

    def forward(self, hint: Tensor) -> tuple[Tensor, ...]:
        """One feature a level, (B, channels, h / 2^level, w / 2^level) rounded up, in the dtype of the weights.

        ``hint`` (B, 3, 8 h, 8 w) is the control picture in [0, 1], RGB; adapters of grey pictures read its mean.
        """
        weight = next(self.parameters())
        hint = hint.mean(dim=1, keepdim=True) if self.config.hint_channels == 1 else hint
        hidden = F.pixel_unshuffle(hint.to(weight.device, weight.dtype), HINT_FACTOR)
        features = []
        for block in self.body:
            hidden = block(hidden)
            features.append(hidden)
        return tuple(features)

    @staticmethod
    def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors under our names; diffusers' (``models/adapter.py``) begin with "adapter" and call blocks resnets."""
        return {name.removeprefix("adapter.").replace(".resnets.", ".body."): t for name, t in weights.items()}


class _Extractor(nn.Module):
    def __init__(self, before: int, inner: int, width: int, blocks: int, *, halved: bool) -> None:
        super().__init__()
        self.in_conv = nn.Conv2d(before, inner, 1)
        self.body = nn.ModuleList(_LightBlock(inner) for _ in range(blocks))
        self.out_conv = nn.Conv2d(inner, width, 1)
        self.halved = halved

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 2, ceil_mode=True) if self.halved else x
        x = self.in_conv(x)
        for block in self.body:
            x = block(x)
        projected: Tensor = self.out_conv(x)
        return projected


class _LightBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block1 = nn.Conv2d(width, width, 3, padding=1)
        self.block2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.block2(F.relu(self.block1(x))) + x
        return total
