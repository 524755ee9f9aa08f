"""RetinaFace: its body against transformers' ResNet, its anchors and boxes against their definitions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from webui.device import Compute
from webui.errors import CheckpointError
from webui.networks import retinaface
from webui.networks.retinaface import ANCHORS, SHORT_SIDE, STRIDES, RetinaFace, anchors, build, decoded, find, surest

COMPUTE = Compute(torch.device("cpu"), torch.bfloat16, torch.bfloat16, 1)
OUTSIDES = (16, 24, 32, 40)
DEPTHS = (2, 1, 3, 1)


def shapes(width: int = 16) -> dict[str, tuple[int, ...]]:
    """Those shapes of a small network that tell its widths and depths."""
    found: dict[str, tuple[int, ...]] = {"body.conv1.weight": (8, 3, 7, 7)}
    inside = 8
    for stage, (outside, depth) in enumerate(zip(OUTSIDES, DEPTHS, strict=True), 1):
        for number in range(depth):
            start = f"body.layer{stage}.{number}."
            found[f"{start}conv1.weight"] = (outside // 4, inside, 1, 1)
            found[f"{start}conv3.weight"] = (outside, outside // 4, 1, 1)
            if number == 0:
                found[f"{start}downsample.0.weight"] = (outside, inside, 1, 1)
            inside = outside
    for number, outside in enumerate(OUTSIDES[1:], 1):
        found[f"fpn.output{number}.0.weight"] = (width, outside, 1, 1)
    return found


def random_network(width: int = 16) -> RetinaFace:
    torch.manual_seed(0)
    network = RetinaFace(shapes(width)).eval()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, 0.5, 1.5) if "var" in name else torch.nn.init.normal_(tensor, std=0.3)
    return network


def test_the_body_is_a_resnet() -> None:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=list(OUTSIDES), depths=list(DEPTHS), layer_type="bottleneck")
    oracle = ResNetModel(config).eval()
    network = random_network()
    ours = {name.removeprefix("body."): tensor for name, tensor in network.state_dict().items() if "body" in name}
    theirs: dict[str, Tensor] = {}
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def take(normed: str, convolution: str, norm: str) -> None:
        theirs[f"{normed}.convolution.weight"] = ours.pop(f"{convolution}.weight")
        for part in parts:
            theirs[f"{normed}.normalization.{part}"] = ours.pop(f"{norm}.{part}")

    take("embedder.embedder", "conv1", "bn1")
    for stage, depth in enumerate(DEPTHS):
        for number in range(depth):
            here, there = f"layer{stage + 1}.{number}", f"encoder.stages.{stage}.layers.{number}"
            for layer in (1, 2, 3):
                take(f"{there}.layer.{layer - 1}", f"{here}.conv{layer}", f"{here}.bn{layer}")
            if number == 0:
                take(f"{there}.shortcut", f"{here}.downsample.0", f"{here}.downsample.1")
    assert not ours
    oracle.load_state_dict(theirs)
    x = torch.randn(2, 3, 70, 101)
    with torch.inference_mode():
        expected = oracle(x, output_hidden_states=True).hidden_states[2:]
        found = network.features(x)
    for ours_map, their_map in zip(found, expected, strict=True):
        assert ours_map.std() > 1e-3 and torch.allclose(ours_map, their_map, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [16, 128])
def test_a_file_is_built_from_its_tensors(width: int, tmp_path: Path) -> None:
    network = random_network(width)
    state = {f"module.{name}": tensor.clone() for name, tensor in network.state_dict().items()}
    torch.save(state, tmp_path / "detection_Resnet50_Final.pth")
    loaded = retinaface.load(tmp_path / "detection_Resnet50_Final.pth", COMPUTE)
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        for ours, theirs in zip(loaded(x), network(x), strict=True):
            assert torch.equal(ours, theirs)
            assert ours.shape[1] == len(anchors(64, 96))
    assert network.fpn.merge1[2].negative_slope == (0.1 if width == 16 else 0.0)
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other.safetensors is no RetinaFace"):
        retinaface.load(tmp_path / "other.safetensors", COMPUTE)
    del state["module.ssh1.conv3X3.0.weight"]
    with pytest.raises(CheckpointError, match="is no RetinaFace"):
        build(state, "torn", COMPUTE)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (37, 50)])
def test_anchors_go_by_map_row_column_and_side(height: int, width: int) -> None:
    expected = [
        ((column + 0.5) * stride / width, (row + 0.5) * stride / height, side / width, side / height)
        for stride, sides in zip(STRIDES, ANCHORS, strict=True)
        for row, column in itertools.product(range(math.ceil(height / stride)), range(math.ceil(width / stride)))
        for side in sides
    ]
    assert torch.allclose(anchors(height, width), torch.tensor(expected))


def test_nothing_said_is_the_anchor_itself() -> None:
    prior = torch.tensor([[0.5, 0.4, 0.2, 0.1]])
    box, points = decoded(torch.zeros(1, 4), torch.zeros(1, 10), prior)
    assert torch.allclose(box, torch.tensor([[0.4, 0.35, 0.6, 0.45]])) and torch.allclose(
        points, torch.tensor([[0.5, 0.4] * 5])
    )
    box, _ = decoded(torch.tensor([[1.0, 2.0, math.log(2) / 0.2, 0.0]]), torch.zeros(1, 10), prior)
    assert torch.allclose(box, torch.tensor([[0.32, 0.37, 0.72, 0.47]]))


def test_of_boxes_that_share_too_much_the_surest_stays() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 6], [0, 6, 10, 10], [20, 0, 30, 10]], dtype=torch.float32)
    assert surest(boxes, torch.tensor([0.98, 0.99, 0.97, 0.5]), 0.4) == [1, 2, 3], "0.6 shared with the second"
    assert surest(boxes, torch.tensor([0.98, 0.9, 0.8, 0.5]), 0.4) == [0, 2, 3], "0.4 is not more than 0.4"


class Seeing:
    """A network that is sure of one place and nearly sure of another."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def parameters(self) -> Iterator[Tensor]:
        return iter([torch.zeros(1)])

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.seen.append(x)
        places = anchors(*x.shape[2:])
        scores = torch.zeros(1, len(places))
        scores[0, 5], scores[0, 7] = 0.99, 0.96
        return scores, torch.zeros(1, len(places), 4), torch.zeros(1, len(places), 10)


@pytest.mark.parametrize("size", [(96, 64), (1600, 1280)])
def test_faces_come_in_pixels_of_the_picture(size: tuple[int, int]) -> None:
    network, pixels = Seeing(), np.zeros((*size, 3), np.uint8)
    pixels[:, :, 0] = 255
    (face,) = find(pixels, network)  # type: ignore[arg-type]
    shrink = max(1.0, min(size) / SHORT_SIDE)
    assert min(network.seen[0].shape[2:]) == min(*size, SHORT_SIDE)
    assert network.seen[0][0, :, 0, 0].tolist() == [-104.0, -117.0, 255 - 123.0], "blue, green, red, less their means"
    assert np.allclose(face, [[2.5 * 8 * shrink, 0.5 * 8 * shrink]] * 5), "the third place of the first row"
