"""Line drawings by a generator of "informative drawings": Chan, Durand, Isola 2022 (arXiv:2203.12691).

The network is the image translator of Johnson et al. 2016 (arXiv:1603.08155) with instance norms that have no weights.
``sk_model.pth`` draws finely, ``sk_model2.pth`` coarsely (lllyasviel/Annotators).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from webui.checkpoints.formats import WeightsFile
from webui.errors import CheckpointError

from .fitting import Levels
from .networks import assign

FIRST = "model0.1.weight"


class Residual(nn.Module):
    """x + two convolutions of x, each behind mirrored borders."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        changed: Tensor = x + self.conv_block(x)
        return changed


class LineDrawer(nn.Module):
    """RGB (B, 3, H, W) from 0 to 1 -> a drawing (B, 1, H, W) from 0 (ink) to 1 (paper); sides are multiples of 4.

    ``width`` are the channels at full size, ``residuals`` the number of blocks at a quarter of it.
    """

    def __init__(self, width: int, residuals: int) -> None:
        super().__init__()
        self.model0 = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU())
        self.model1 = nn.Sequential(*_smaller(width), *_smaller(2 * width))
        self.model2 = nn.Sequential(*(Residual(4 * width) for _ in range(residuals)))
        self.model3 = nn.Sequential(*_larger(4 * width), *_larger(2 * width))
        self.model4 = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, 1, 7), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """The drawing."""
        for part in (self.model0, self.model1, self.model2, self.model3, self.model4):
            x = part(x)
        return x


def _smaller(width: int) -> tuple[nn.Module, ...]:
    """Half the size, twice the channels."""
    return nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.InstanceNorm2d(2 * width), nn.ReLU()


def _larger(width: int) -> tuple[nn.Module, ...]:
    """Twice the size, half the channels."""
    grown = nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1)
    return grown, nn.InstanceNorm2d(width // 2), nn.ReLU()


def load(file: WeightsFile, device: torch.device) -> LineDrawer:
    """The network of a file.  Raises CheckpointError for a file that holds another one."""
    weights = file.load("", torch.float32, device)
    if FIRST not in weights:
        raise CheckpointError(f"{file.path.name} is no drawer of lines: {FIRST} is missing; fetch it again.")
    with torch.device("meta"):
        network = LineDrawer(weights[FIRST].shape[0], _residuals(weights))
    assign(network, weights, file.path.name)
    return network


def _residuals(weights: Mapping[str, Tensor]) -> int:
    return sum(key.startswith("model2.") and key.endswith(".conv_block.1.weight") for key in weights)


def drawing(network: LineDrawer, pixels: Levels) -> NDArray[np.float32]:
    """A drawing (H, W) of a picture (H, W, 3), from 0 (ink) to 1 (paper)."""
    like = next(network.parameters())
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].to(like) / 255
    paper: NDArray[np.float32] = network(x)[0, 0].float().cpu().numpy()
    return paper
