"""Layers of a frozen network with a low-rank change that learns: y = W x + b + scale * up(down(x)).

LoRA, Hu et al. 2021 (arXiv:2106.09685, equation 3).  The frozen weights take part in gradients only as far as those of
the layers below need them; nothing of their size is ever computed for the weights themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from webui.networks.kernels import linear
from webui.networks.lora import Target


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
        weight = self.layer.weight.flatten(1)
        answer: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
            x, weight, self.layer.bias, self.down.flatten(1), self.up.flatten(1), self.scale
        )
        return answer


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


class _Product(torch.autograd.Function):
    """x W^T + b + scale * (x down^T) up^T in two products more than the layer alone and no pass over the tokens more.

    By itself autograd would add the two branches in tensors of their own, forward and backward, and keep both.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        low = (tokens @ down.T).mul_(scale)
        answer = linear(tokens, weight, bias).addmm_(low, up.T)
        ctx.save_for_backward(x, weight, down, up, low)
        ctx.scale = scale
        return answer.view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up, low = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, len(weight))
        low_gradient = (gradient @ up).mul_(ctx.scale)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (gradient @ weight).addmm_(low_gradient, down).view(x.shape)
        return of_x, None, None, low_gradient.T @ x.reshape(-1, x.shape[-1]), gradient.T @ low, None
