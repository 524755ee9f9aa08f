"""RetinaFace with a ResNet body: where faces are, five points each (Deng et al. 2019, arXiv:1905.00641).

The file is facexlib's ``detection_Resnet50_Final.pth``, which AUTOMATIC1111 keeps beside GFPGAN.  Layers are named as
in biubug6/Pytorch_Retinaface; widths and depths are read from the tensors' shapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from webui.checkpoints.formats import BUILT_IN, Formats
from webui.device import Compute
from webui.errors import CheckpointError
from webui.result import Pixels

STRIDES = (8, 16, 32)
ANCHORS = ((16, 32), (64, 128), (256, 512))
"""Sides in pixels of the two squares at each place of the three feature maps."""
VARIANCES = (0.1, 0.2)
SCORE = 0.97
OVERLAP = 0.4
"""Of two faces that share more than this of their union, the surer one stays."""
SHORT_SIDE = 640
"""A picture is shown to the network with its shorter side this long, unless it is shorter already."""
MEAN_BGR = (104.0, 117.0, 123.0)


class Bottleneck(nn.Module):
    """A residual block of ResNet (He et al. 2015, arXiv:1512.03385, figure 5), its stride in the 3x3 convolution."""

    def __init__(self, inside: int, between: int, outside: int, stride: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, between, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(between)
        self.conv2 = nn.Conv2d(between, between, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(between)
        self.conv3 = nn.Conv2d(between, outside, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outside)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
            if shortcut
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, H, W) -> (B, outside, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


def _normed(inside: int, outside: int, kernel: int, slope: float | None = None) -> nn.Sequential:
    """A convolution with batch norm; with ``slope`` also a leaky ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inside, outside, kernel, 1, kernel // 2, bias=False),
        nn.BatchNorm2d(outside),
    ]
    return nn.Sequential(*layers, *([] if slope is None else [nn.LeakyReLU(slope)]))


class Pyramid(nn.Module):
    """Three feature maps brought to one width, coarse ones added to fine ones (Lin et al. 2016, arXiv:1612.03144)."""

    def __init__(self, inside: list[int], width: int, slope: float) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (_normed(channels, width, 1, slope) for channels in inside)
        self.merge1, self.merge2 = _normed(width, width, 3, slope), _normed(width, width, 3, slope)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """The maps, fine to coarse, each with ``width`` channels."""
        fine, middle, coarse = self.output1(maps[0]), self.output2(maps[1]), self.output3(maps[2])
        middle = self.merge2(middle + interpolate(coarse, size=middle.shape[2:]))
        fine = self.merge1(fine + interpolate(middle, size=fine.shape[2:]))
        return [fine, middle, coarse]


class Context(nn.Module):
    """Three fields of view side by side (SSH, Najibi et al. 2017, arXiv:1708.03979, figure 4)."""

    def __init__(self, width: int, slope: float) -> None:
        super().__init__()
        self.conv3X3 = _normed(width, width // 2, 3)
        self.conv5X5_1 = _normed(width, width // 4, 3, slope)
        self.conv5X5_2 = _normed(width // 4, width // 4, 3)
        self.conv7X7_2 = _normed(width // 4, width // 4, 3, slope)
        self.conv7x7_3 = _normed(width // 4, width // 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> the same shape."""
        wide = self.conv5X5_1(x)
        parts = [self.conv3X3(x), self.conv5X5_2(wide), self.conv7x7_3(self.conv7X7_2(wide))]
        return torch.relu(torch.cat(parts, 1))


class Head(nn.Module):
    """``values`` numbers for each of the two anchors at each place."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.values = values
        self.conv1x1 = nn.Conv2d(width, 2 * values, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, H * W * 2, values)."""
        return self.conv1x1(x).permute(0, 2, 3, 1).reshape(len(x), -1, self.values)  # type: ignore[no-any-return]


class RetinaFace(nn.Module):
    """Pictures (B, 3, H, W), BGR less ``MEAN_BGR``, -> scores (B, N), boxes (B, N, 4) and points (B, N, 10), raw."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.body = nn.ModuleDict(_body(shapes))
        width = shapes["fpn.output1.0.weight"][0]
        slope = 0.1 if width <= 64 else 0.0
        self.fpn = Pyramid([shapes[f"fpn.output{n}.0.weight"][1] for n in (1, 2, 3)], width, slope)
        self.ssh1, self.ssh2, self.ssh3 = (Context(width, slope) for _ in STRIDES)
        self.ClassHead, self.BboxHead, self.LandmarkHead = (
            nn.ModuleList(Head(width, values) for _ in STRIDES) for values in (2, 4, 10)
        )

    def features(self, x: Tensor) -> list[Tensor]:
        """The body's maps with strides 8, 16 and 32."""
        x = self.body["maxpool"](torch.relu(self.body["bn1"](self.body["conv1"](x))))
        x = self.body["layer1"](x)
        maps = []
        for name in ("layer2", "layer3", "layer4"):
            x = self.body[name](x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        maps = self.fpn(self.features(x))
        maps = [context(each) for context, each in zip((self.ssh1, self.ssh2, self.ssh3), maps, strict=True)]
        scores, boxes, points = (
            torch.cat([head(each) for head, each in zip(heads, maps, strict=True)], 1)
            for heads in (self.ClassHead, self.BboxHead, self.LandmarkHead)
        )
        return scores.softmax(-1)[..., 1], boxes, points


def _body(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, nn.Module]:
    """A ResNet up to its last feature map, without the classifier."""
    stem = shapes["body.conv1.weight"][0]
    parts: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, stem, 7, 2, 3, bias=False),
        "bn1": nn.BatchNorm2d(stem),
        "maxpool": nn.MaxPool2d(3, 2, 1),
    }
    for stage in (1, 2, 3, 4):
        start = f"body.layer{stage}."
        depth = 1 + max(int(found[1]) for name in shapes if (found := re.match(rf"{re.escape(start)}(\d+)\.", name)))
        blocks = []
        for number in range(depth):
            at = f"{start}{number}."
            between, inside = shapes[f"{at}conv1.weight"][:2]
            stride = 2 if stage > 1 and number == 0 else 1
            shortcut = f"{at}downsample.0.weight" in shapes
            blocks.append(Bottleneck(inside, between, shapes[f"{at}conv3.weight"][0], stride, shortcut))
        parts[f"layer{stage}"] = nn.Sequential(*blocks)
    return parts


def build(state: Mapping[str, Tensor], name: str, compute: Compute) -> RetinaFace:
    """The network of these tensors, in fp32.  Raises CheckpointError when they are not those of a RetinaFace."""
    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    try:
        network = RetinaFace({key: tuple(tensor.shape) for key, tensor in state.items()})
        network.load_state_dict(dict(state))
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{name} is no RetinaFace with a ResNet body, or it is damaged.") from error
    return network.to(compute.device, torch.float32).eval()


def load(path: Path, compute: Compute, formats: Formats = BUILT_IN) -> RetinaFace:
    """The network of a file; the last one stays loaded.  Raises CheckpointError, NotFoundError."""
    return _load(path, path.stat().st_mtime_ns if path.exists() else 0, compute, formats)


@lru_cache(maxsize=1)
def _load(path: Path, mtime_ns: int, compute: Compute, formats: Formats) -> RetinaFace:
    tensors = formats.open(path).load("", torch.float32, torch.device("cpu"))
    return build(tensors, path.name, compute)


def find(pixels: Pixels, network: RetinaFace) -> list[NDArray[np.float32]]:
    """The five points (5, 2) of each face in a picture (H, W, 3), the surest first."""
    height, width = pixels.shape[:2]
    shrink = max(1.0, min(height, width) / SHORT_SIDE)
    size = (max(1, int(width / shrink)), max(1, int(height / shrink)))
    bgr = np.ascontiguousarray(pixels[:, :, ::-1])
    small = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA) if shrink > 1 else bgr
    x = torch.from_numpy(small).permute(2, 0, 1)[None].float() - torch.tensor(MEAN_BGR)[None, :, None, None]
    with torch.inference_mode():
        answer = network(x.to(next(network.parameters()).device))
    scores, boxes, points = (part[0].float().cpu() for part in answer)
    priors = anchors(size[1], size[0])
    sure = scores > SCORE
    boxes, points = decoded(boxes[sure], points[sure], priors[sure])
    kept = surest(boxes, scores[sure], OVERLAP)
    factor = torch.tensor([width, height], dtype=torch.float32)
    return [(points[number].reshape(5, 2) * factor).numpy() for number in kept]


def anchors(height: int, width: int) -> Tensor:
    """(N, 4): middle x and y, width and height of each anchor, as shares of the picture."""
    found = []
    for stride, sides in zip(STRIDES, ANCHORS, strict=True):
        rows, columns = math.ceil(height / stride), math.ceil(width / stride)
        y, x, side = torch.meshgrid(
            (torch.arange(rows) + 0.5) * stride / height,
            (torch.arange(columns) + 0.5) * stride / width,
            torch.tensor(sides, dtype=torch.float32),
            indexing="ij",
        )
        found.append(torch.stack([x, y, side / width, side / height], -1).reshape(-1, 4))
    return torch.cat(found)


def decoded(boxes: Tensor, points: Tensor, priors: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4) as left, top, right, bottom and points (N, 10), as shares of the picture.

    The regression of SSD (Liu et al. 2015, arXiv:1512.02325, equation 2) with its variances.
    """
    middles, sides = priors[:, :2], priors[:, 2:]
    centre = middles + boxes[:, :2] * VARIANCES[0] * sides
    half = sides * torch.exp(boxes[:, 2:] * VARIANCES[1]) / 2
    places = middles.repeat(1, 5) + points * VARIANCES[0] * sides.repeat(1, 5)
    return torch.cat([centre - half, centre + half], 1), places


def surest(boxes: Tensor, scores: Tensor, overlap: float) -> list[int]:
    """The numbers of the boxes that stay, the surest first: none shares more than ``overlap`` with a surer one."""
    order = scores.argsort(descending=True).tolist()
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    kept: list[int] = []
    for number in order:
        if kept:
            others = boxes[kept]
            low, high = torch.maximum(others[:, :2], boxes[number, :2]), torch.minimum(others[:, 2:], boxes[number, 2:])
            shared = (high - low).clamp(min=0).prod(1)
            if (shared / (areas[kept] + areas[number] - shared) > overlap).any():
                continue
        kept.append(number)
    return kept
