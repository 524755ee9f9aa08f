"""Soft edges by HED: a VGG whose five stages each say where edges are; their mean is the answer.

Xie and Tu 2015 (arXiv:1504.06375), in the RGB form that was trained for ControlNet (``ControlNetHED.pth`` of
lllyasviel/Annotators): a mean that is learnt, and no joint layer behind the five.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from webui.checkpoints.formats import WeightsFile
from webui.errors import CheckpointError

from .fitting import Levels
from .networks import assign

STAGES = 5


class Stage(nn.Module):
    """Some convolutions of one width, and one that says from their answer (B, C, H, W) where edges are (B, 1, H, W)."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [channels] + [width] * depth
        self.convs = nn.ModuleList(nn.Conv2d(entering, leaving, 3, padding=1) for entering, leaving in pairwise(widths))
        self.projection = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> what the next stage sees, (B, width, H, W), and the logits of edges, (B, 1, H, W)."""
        for conv in self.convs:
            x = F.relu(conv(x))
        return x, self.projection(x)


class HED(nn.Module):
    """RGB levels (B, 3, H, W) from 0 to 255 -> the logits of edges (B, 1, h, w) of each stage, each half as large.

    ``widths`` and ``depths`` are the channels and the number of convolutions of the stages.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))
        for number, (channels, width, depth) in enumerate(zip((3, *widths), widths, depths, strict=False), start=1):
            self.add_module(f"block{number}", Stage(channels, width, depth))

    def forward(self, x: Tensor) -> list[Tensor]:
        """The logits of each stage, the finest first."""
        x = x - self.norm
        sides = []
        for number in range(1, STAGES + 1):
            x = x if number == 1 else F.max_pool2d(x, 2)
            x, side = self.get_submodule(f"block{number}")(x)
            sides.append(side)
        return sides


def load(file: WeightsFile, device: torch.device) -> HED:
    """The network of a file.  Raises CheckpointError for a file that holds another one."""
    weights = file.load("", torch.float32, device)
    widths, depths = zip(*(_stage(weights, number, file.path.name) for number in range(1, STAGES + 1)), strict=True)
    with torch.device("meta"):
        network = HED(widths, depths)
    assign(network, weights, file.path.name)
    return network


def _stage(weights: Mapping[str, Tensor], number: int, name: str) -> tuple[int, int]:
    """Channels and number of convolutions of a stage."""
    first = weights.get(f"block{number}.convs.0.weight")
    if first is None:
        raise CheckpointError(f"{name} is no HED network: block{number}.convs.0.weight is missing; fetch it again.")
    depth = sum(key.startswith(f"block{number}.convs.") and key.endswith(".weight") for key in weights)
    return first.shape[0], depth


def edges(network: HED, pixels: Levels) -> NDArray[np.float64]:
    """How much of an edge each pixel is, (H, W) from 0 to 1, of a picture (H, W, 3)."""
    height, width = pixels.shape[:2]
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].to(network.norm)
    sides = [side[0, 0].float().cpu().numpy() for side in network(x)]
    sides = [cv2.resize(side, (width, height), interpolation=cv2.INTER_LINEAR) for side in sides]
    mean = np.mean(np.stack(sides), axis=0).astype(np.float64)
    made: NDArray[np.float64] = 1 / (1 + np.exp(-mean))
    return made
