"""Soft edges by PiDiNet, Su et al. 2021 (arXiv:2108.07009): convolutions of differences between pixels.

A difference of pixels, weighted and summed, is a plain convolution with other weights (the paper's section 3.3): so
here the weights are changed as the file is read, and the network computes plain convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from webui.checkpoints.formats import WeightsFile
from webui.errors import CheckpointError

from .fitting import Levels
from .networks import assign

FIRST = "init_block.weight"
PREFIXES = ("state_dict.", "module.")
DILATIONS = (5, 7, 9, 11)
STAGES = 4
BLOCKS = 4
"""Convolutions of differences in each stage; the first one of the first stage is ``init_block``."""
TURNED = (3, 0, 1, 6, 4, 2, 7, 8, 5)
"""Each place of a 3 x 3 kernel's neighbour around its middle, row by row."""
NEAR = (6, 7, 8, 11, 13, 16, 17, 18)
FAR = (0, 2, 4, 10, 14, 20, 22, 24)
"""The eight places around the middle of a 5 x 5 kernel, row by row, and those twice as far out."""


def central(weight: Tensor) -> Tensor:
    """As a plain kernel: each pixel's difference from the middle one."""
    plain = weight.clone()
    plain[:, :, 1, 1] -= weight.sum(dim=(2, 3))
    return plain


def angular(weight: Tensor) -> Tensor:
    """As a plain kernel: each pixel's difference from its neighbour around the middle."""
    flat = weight.flatten(2)
    return (flat - flat[:, :, TURNED]).view_as(weight)


def radial(weight: Tensor) -> Tensor:
    """As a plain kernel of 5 x 5: what is two pixels out, less what is one pixel out; the first weight has no use."""
    around = weight.flatten(2)[:, :, 1:]
    plain = weight.new_zeros(*weight.shape[:2], 25)
    plain[:, :, FAR], plain[:, :, NEAR] = around, -around
    return plain.view(*weight.shape[:2], 5, 5)


KINDS: tuple[Callable[[Tensor], Tensor], ...] = (central, angular, radial, torch.clone)
"""What the convolutions' weights are, one after the other and over again: the paper's configuration ``carv4``."""


class Differences(nn.Module):
    """Layer ``number`` of all: weights for each channel, then a mix of the channels, added to what came in.

    ``halves`` makes the picture half as large before.
    """

    def __init__(self, number: int, channels: int, width: int, *, halves: bool) -> None:
        super().__init__()
        side = _side(number)
        self.halves = halves
        if halves:
            self.shortcut = nn.Conv2d(channels, width, 1)
        self.conv1 = nn.Conv2d(channels, channels, side, padding=side // 2, groups=channels, bias=False)
        self.conv2 = nn.Conv2d(channels, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, width, H, W) or half as large."""
        x = F.max_pool2d(x, 2) if self.halves else x
        change: Tensor = self.conv2(F.relu(self.conv1(x)))
        return change + (self.shortcut(x) if self.halves else x)


class Dilation(nn.Module):
    """What is near and far: four dilated convolutions, summed (the paper's compact dilation)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1)
        for place, reach in enumerate(DILATIONS, start=1):
            wide = nn.Conv2d(width, width, 3, dilation=reach, padding=reach, bias=False)
            self.add_module(f"conv2_{place}", wide)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, width, H, W)."""
        x = self.conv1(F.relu(x))
        parts: list[Tensor] = [self.get_submodule(f"conv2_{place}")(x) for place in range(1, len(DILATIONS) + 1)]
        return torch.stack(parts).sum(dim=0)


class Attention(nn.Module):
    """x times a share (B, 1, H, W) from 0 to 1 (the paper's compact spatial attention)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 1)
        self.conv2 = nn.Conv2d(inner, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        shared: Tensor = x * torch.sigmoid(self.conv2(self.conv1(F.relu(x))))
        return shared


class Reduction(nn.Module):
    """One map (B, 1, H, W) of many."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 1, H, W)."""
        reduced: Tensor = self.conv(x)
        return reduced


class PiDiNet(nn.Module):
    """BGR (B, 3, H, W) from 0 to 1 -> edges (B, 1, H, W) from 0 to 1.

    ``width`` are the channels of the first stage, ``dilated`` those of the dilations, ``inner`` of the attention.
    """

    def __init__(self, width: int, dilated: int, inner: int) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width, 4 * width)
        self.init_block = nn.Conv2d(3, width, _side(0), padding=_side(0) // 2, bias=False)
        for number, name in enumerate(_names()[1:], start=1):
            stage = number // BLOCKS
            halves = number % BLOCKS == 0
            block = Differences(number, widths[stage - halves], widths[stage], halves=halves)
            self.add_module(name, block)
        self.dilations = nn.ModuleList(Dilation(one, dilated) for one in widths)
        self.attentions = nn.ModuleList(Attention(dilated, inner) for _ in widths)
        self.conv_reduces = nn.ModuleList(Reduction(dilated) for _ in widths)
        self.classifier = nn.Conv2d(STAGES, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The edges that the four stages together see."""
        size, sides = x.shape[2:], []
        for number, name in enumerate(_names()):
            x = self.get_submodule(name)(x)
            if number % BLOCKS == BLOCKS - 1:
                stage = number // BLOCKS
                side = self.conv_reduces[stage](self.attentions[stage](self.dilations[stage](x)))
                sides.append(F.interpolate(side, size, mode="bilinear", align_corners=False))
        return torch.sigmoid(self.classifier(torch.cat(sides, dim=1)))


def _names() -> list[str]:
    """The convolutions of differences in their order."""
    blocks = [f"block{stage}_{block}" for stage in range(1, STAGES + 1) for block in range(1, BLOCKS + 1)]
    return ["init_block", *blocks[: BLOCKS - 1], *blocks[BLOCKS:]]


def _side(number: int) -> int:
    """The side of the plain kernel of a layer."""
    return 5 if KINDS[number % len(KINDS)] is radial else 3


def load(file: WeightsFile, device: torch.device) -> PiDiNet:
    """The network of a file.  Raises CheckpointError for a file that holds another one."""
    weights = _plain(file.load("", torch.float32, device), file.path.name)
    width, dilated = weights[FIRST].shape[0], weights["dilations.0.conv1.weight"].shape[0]
    with torch.device("meta"):
        network = PiDiNet(width, dilated, weights["attentions.0.conv1.weight"].shape[0])
    assign(network, weights, file.path.name)
    return network


def _plain(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The weights of plain convolutions, under the names of this network."""
    for prefix in PREFIXES:
        weights = {key.removeprefix(prefix): tensor for key, tensor in weights.items()}
    wanted = (FIRST, "dilations.0.conv1.weight", "attentions.0.conv1.weight")
    missing = next((key for key in wanted if key not in weights), None)
    if missing is not None:
        raise CheckpointError(f"{name} is no PiDiNet with dilations and attention: {missing} is missing.")
    plain = dict(weights)
    for number, layer in enumerate(_names()):
        key = FIRST if number == 0 else f"{layer}.conv1.weight"
        if key in plain and plain[key].shape[2:] == (3, 3):
            plain[key] = KINDS[number % len(KINDS)](plain[key])
    return plain


def edges(network: PiDiNet, pixels: Levels) -> NDArray[np.float32]:
    """How much of an edge each pixel is, (H, W) from 0 to 1, of a picture (H, W, 3)."""
    blue_first = np.ascontiguousarray(pixels[:, :, ::-1])
    x = torch.from_numpy(blue_first).permute(2, 0, 1)[None].to(network.classifier.weight) / 255
    made: NDArray[np.float32] = network(x)[0, 0].float().cpu().numpy()
    return made
