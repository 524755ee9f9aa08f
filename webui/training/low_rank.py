"""Layers of a frozen network with a low-rank change that learns: y = W x + b + scale * up(down(x)).

LoRA, Hu et al. 2021 (arXiv:2106.09685, equation 3).  The frozen weights take part in gradients only as far as those of
the layers below need them; nothing of their size is ever computed for the weights themselves.

Two branches, not one weight W + scale * up @ down: that one is a sixth faster on the narrow embedded model, but a third
slower on SD1.5, where the gradient of the whole weight costs as much as the layer; and in bf16 it would round away
changes smaller than 1/256 of a weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from webui.networks.kernels import linear
from webui.networks.layer_names import Target


@dataclass(frozen=True)
class Pair:
    """``down`` (r, in, ...) and ``up`` (out, r, ...) of a layer, as a kohya file holds them; the dtype is theirs."""

    down: nn.Parameter
    up: nn.Parameter


class LowRankLinear(nn.Module):
    """A linear layer, or a 1 x 1 convolution on tokens (..., in) -> (..., out), with its change."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, pair: Pair, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = layer, scale
        self.down, self.up = pair.down, pair.up

    def forward(self, x: Tensor) -> Tensor:
        """The layer's answer (..., out) to ``x`` (..., in)."""
        low = linear(x, self.down.flatten(1), None) * self.scale
        return linear(x, self.layer.weight.flatten(1), self.layer.bias) + linear(low, self.up.flatten(1), None)


class LowRankConv(nn.Module):
    """A convolution with its change: ``down`` has the layer's kernel, stride and padding, ``up`` is 1 x 1."""

    def __init__(self, layer: nn.Conv2d, pair: Pair, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = layer, scale
        self.down, self.up = pair.down, pair.up

    def forward(self, x: Tensor) -> Tensor:
        """The layer's answer (B, out, h', w') to ``x`` (B, in, h, w)."""
        low = F.conv2d(x, self.down, None, self.layer.stride, self.layer.padding)
        answer: Tensor = self.layer(x)
        return answer + F.conv2d(low, self.up * self.scale)


def attach(
    networks: Mapping[str, nn.Module], targets: Mapping[str, Target], rank: int, scale: float, seed: int
) -> tuple[dict[str, Pair], dict[str, tuple[Tensor, Tensor]]]:
    """Put a learning pair at every target, in place of its layer; all that was there before is frozen.

    The pairs by the targets' names, in the dtype of their networks, and their first values in fp32: ``down`` uniform
    within 1 / sqrt(fan in) (He et al. 2015 with a = sqrt 5, as microsoft/LoRA ``loralib/layers.py``), ``up`` zero, so
    that the network begins as it was.  ``networks`` are named as in the targets.
    """
    for network in networks.values():
        network.requires_grad_(False)
    random = Generator().manual_seed(seed)
    pairs: dict[str, Pair] = {}
    first: dict[str, tuple[Tensor, Tensor]] = {}
    for name, target in targets.items():
        network = networks[target.network]
        path = target.parameter.removesuffix(".weight")
        layer = network.get_submodule(path)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        down, up = first[name] = _first(target.shape, rank, random)
        pair = pairs[name] = Pair(nn.Parameter(down.to(layer.weight)), nn.Parameter(up.to(layer.weight)))
        parent, _, attribute = path.rpartition(".")
        setattr(network.get_submodule(parent), attribute, _with_pair(layer, path, pair, scale))
    return pairs, first


def _first(shape: tuple[int, ...], rank: int, random: Generator) -> tuple[Tensor, Tensor]:
    bound = 1.0 / math.sqrt(math.prod(shape[1:]))
    down = torch.empty(rank, *shape[1:]).uniform_(-bound, bound, generator=random)
    return down, torch.zeros(shape[0], rank, *[1] * (len(shape) - 2))


def _with_pair(layer: nn.Linear | nn.Conv2d, path: str, pair: Pair, scale: float) -> nn.Module:
    """Projections around the UNet's transformers are given tokens, also where they are 1 x 1 convolutions."""
    if isinstance(layer, nn.Linear) or path.endswith((".proj_in", ".proj_out")):
        return LowRankLinear(layer, pair, scale)
    return LowRankConv(layer, pair, scale)
