"""Depth by transformers' networks: which folder is taken, how it sees, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from controlnet_parts import part
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForDepthEstimation,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
)
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from webui.checkpoints.formats import BUILT_IN
from webui.checkpoints.hashes import HashCache
from webui.checkpoints.library import Library, ModelEntry
from webui.errors import CheckpointError
from webui.preprocessors import Preprocessor

CPU = torch.device("cpu")
PICTURE = np.random.default_rng(2).integers(0, 256, (50, 77, 3), dtype=np.uint8)
depth = part("depth")
ALL = {one.name: one for one in part("network_preprocessors").network_preprocessors() if "Depth" in one.tags}
SEEN = {"size": {"height": 42, "width": 42}, "keep_aspect_ratio": True, "ensure_multiple_of": 14}
NORMS = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}


@dataclass
class Place:
    """A models folder with networks of depth."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "ControlNetPreprocessor"

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        library = Library(self.root, HashCache(self.root / "hashes.sqlite3"))
        return library.entries("preprocessor")

    def dpt(self, name: str = "dpt-tiny", **more: Any) -> Path:
        torch.manual_seed(3)
        config = DPTConfig(
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=37,
            image_size=32,
            patch_size=16,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 8, 16, 16],
            fusion_hidden_size=8,
            is_hybrid=False,
            initializer_range=0.2,
            **more,
        )
        DPTForDepthEstimation(config).save_pretrained(self.folder / name)
        return self.folder / name / "model.safetensors"

    def depth_anything(self, name: str, **more: Any) -> Path:
        torch.manual_seed(4)
        backbone = Dinov2Config(
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=4,
            mlp_ratio=2,
            image_size=28,
            patch_size=14,
            out_indices=[1, 2, 3, 4],
            reshape_hidden_states=False,
            initializer_range=0.2,
        )
        config = DepthAnythingConfig(
            backbone_config=backbone,
            patch_size=14,
            reassemble_hidden_size=32,
            neck_hidden_sizes=[8, 8, 16, 16],
            fusion_hidden_size=8,
            head_hidden_size=8,
            initializer_range=0.2,
            **more,
        )
        DepthAnythingForDepthEstimation(config).save_pretrained(self.folder / name)
        (self.folder / name / "preprocessor_config.json").write_text(json.dumps({**SEEN, **NORMS}), "utf-8")
        return self.folder / name / "model.safetensors"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def expected(folder: Path, processor: DPTImageProcessorPil) -> np.ndarray:
    """The same by transformers' own way from picture to depth."""
    model = AutoModelForDepthEstimation.from_pretrained(folder).eval()
    with torch.inference_mode():
        found = model(**processor(PICTURE, return_tensors="pt")).predicted_depth
        near = F.interpolate(found[:, None], PICTURE.shape[:2], mode="bicubic", align_corners=False)[0, 0].numpy()
    shares: np.ndarray = (near - near.min()) / (near.max() - near.min())
    return shares


def found(path: Path) -> np.ndarray:
    network = depth.load(BUILT_IN.open(path), CPU)
    with torch.inference_mode():
        shares: np.ndarray = depth.nearness(network, PICTURE)
    return shares


def test_depth_anything_sees_and_answers_as_in_transformers(place: Place) -> None:
    path = place.depth_anything("tiny")
    shares = found(path)
    assert shares.shape == (50, 77) and shares.min() == 0 and shares.max() == 1 and shares.std() > 0.05
    assert np.allclose(shares, expected(path.parent, DPTImageProcessorPil(**SEEN, **NORMS, resample=3)), atol=1e-5)


def test_dpt_sees_a_square_of_its_own_size(place: Place) -> None:
    path = place.dpt()
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = DPTImageProcessorPil(size={"height": 32, "width": 32}, keep_aspect_ratio=False, resample=3, **half)
    assert np.allclose(found(path), expected(path.parent, processor), atol=1e-5)


@pytest.mark.parametrize("size", [(50, 77), (600, 400), (518, 518), (30, 900), (1, 1)])
def test_the_size_that_a_network_sees_is_transformers(size: tuple[int, int]) -> None:
    from transformers.models.dpt.image_processing_pil_dpt import get_resize_output_image_size

    sight = depth.Sight.of("depth_anything", None, {})
    theirs = get_resize_output_image_size(
        np.zeros((3, *size), np.uint8), (518, 518), keep_aspect_ratio=True, multiple=14
    )
    assert sight.size_for(*size) == (max(14, theirs.height), max(14, theirs.width))
    assert (sight.mean, sight.deviation) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_which_folder_is_whose(place: Place) -> None:
    def whose() -> dict[str, str | None]:
        entries = place.entries
        files = {name: one.weights.find(entries) for name, one in ALL.items() if one.weights}
        return {name: entry.name if entry else None for name, entry in files.items()}

    assert whose() == dict.fromkeys(("depth_anything", "depth_anything_v2", "depth_midas"))
    place.dpt("Intel/dpt-large")
    place.depth_anything("Depth-Anything-V2-Small-hf")
    place.depth_anything("metric", depth_estimation_type="metric", max_depth=20)
    assert whose() == {
        "depth_anything": None,
        "depth_anything_v2": "Depth-Anything-V2-Small-hf/model",
        "depth_midas": "Intel/dpt-large/model",
    }
    place.depth_anything("depth-anything-small-hf")
    assert whose()["depth_anything"] == "depth-anything-small-hf/model"


def test_files_that_are_no_settings_name_no_network(place: Place) -> None:
    config = place.dpt().with_name("config.json")
    for text in ("", "[1]", "[" * 100_000, json.dumps({"model_type": "bert"}), '"' + "x" * (1 << 21) + '"'):
        config.write_text(text, "utf-8")
        assert all(one.weights is None or one.weights.find(place.entries) is None for one in ALL.values())
    config.unlink()
    with pytest.raises(CheckpointError, match=r"dpt-tiny/model\.safetensors is no DPT or Depth Anything"):
        depth.load(BUILT_IN.open(config.with_name("model.safetensors")), CPU)


def test_a_network_that_lies_elsewhere_is_not_fetched(place: Place) -> None:
    path = place.dpt()
    config = path.with_name("config.json")
    said = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps({**said, "backbone": "some/where"}), "utf-8")
    with pytest.raises(CheckpointError, match=r"asks for another model \(some/where\), which is not fetched"):
        depth.load(BUILT_IN.open(path), CPU)


def test_what_published_files_leave_out_does_not_matter_and_what_else_is_missing_does(place: Place) -> None:
    path = place.dpt()
    whole, tensors = found(path), load_file(path)
    unused = [name for name in tensors if name.startswith(depth.UNUSED)]
    assert unused
    save_file({name: one for name, one in tensors.items() if name not in unused}, path, {"format": "pt"})
    assert np.array_equal(found(path), whole)
    save_file({name: one for name, one in tensors.items() if "head" not in name}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"is incomplete: head\.head"):
        found(path)


def test_a_file_of_other_sizes_is_refused_in_a_sentence(place: Place) -> None:
    path = place.dpt()
    other = place.depth_anything("other")
    shutil.copy(other, path)
    with pytest.raises(CheckpointError, match=r"dpt-tiny/model\.safetensors"):
        found(path)


@pytest.mark.parametrize("one", ALL.values(), ids=lambda one: one.name)
def test_near_is_white(one: Preprocessor, place: Place) -> None:
    path = place.dpt() if one.name == "depth_midas" else place.depth_anything("Tiny-V2" if "v2" in one.name else "tiny")
    assert one.weights is not None and one.file(place.entries) is not None
    network = one.weights.build(BUILT_IN.open(path), CPU)
    with torch.inference_mode():
        picture = one.run(PICTURE, {}, network)
    assert picture.shape == PICTURE.shape and picture.dtype == np.uint8
    assert np.array_equal(picture[:, :, 0], (found(path) * 255).astype(np.uint8))


def test_one_colour_is_flat_not_a_division_by_zero() -> None:
    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = torch.nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> Any:
            return type("Answer", (), {"predicted_depth": torch.ones(1, 4, 4)})

    network = depth.DepthNetwork(Flat(), depth.Sight.of("depth_anything", None, {}))
    assert not depth.nearness(network, PICTURE).any()
