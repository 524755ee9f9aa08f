"""Faces: the geometry of cutting out and laying back, the detectors' files, and the restorers' networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch

from webui.checkpoints.hashes import HashCache
from webui.checkpoints.library import Library
from webui.device import Compute
from webui.errors import CheckpointError, NotFoundError, RequestError
from webui.faces import FaceWork, detection, file_named, find_restorer, restored
from webui.faces.alignment import PLACES, SIDE, mend
from webui.faces.detection import Points, by_yunet, find_faces, points_of_box
from webui.networks.restoration import PictureNetwork, PictureNetworks, spandrel
from webui.plugins.manager import Plugins
from webui.result import Pixels

COMPUTE = Compute(torch.device("cpu"), torch.float32, torch.float32, 1)
RESTORERS = Plugins.load(None).face_restorers


def smooth(width: int, height: int) -> Pixels:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 6), np.uint8)


def face_at(x: float, y: float, size: float, turn: float = 0.0) -> Points:
    """The points of a face of ``size`` pixels around (x, y), turned by degrees."""
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    turned = (PLACES - SIDE / 2) / SIDE * size @ np.array([[cos, sin], [-sin, cos]])
    return np.asarray(turned + np.array([x, y]), np.float32)


def work(folder: Path) -> FaceWork:
    library = Library(folder, HashCache(folder / "hashes.sqlite3"))
    return FaceWork(entries=library.entries("face"), folder=folder, networks=PictureNetworks(COMPUTE))


@pytest.mark.parametrize("turn", [0.0, 20.0, -75.0])
def test_a_face_comes_upright_and_goes_back_where_it_was(turn: float) -> None:
    pixels = smooth(300, 240)
    for x, y in detectable(face_at(150, 120, 120, turn)):
        cv2.circle(pixels, (x, y), 3, (255, 0, 0), -1)
    crops = []

    def keep(crop: Pixels) -> Pixels:
        crops.append(crop)
        return crop

    mended = mend(pixels, [face_at(150, 120, 120, turn)], keep)
    (crop,) = crops
    assert crop.shape == (SIDE, SIDE, 3)
    for x, y in PLACES.round().astype(int):
        assert crop[y, x, 0] > 200 and crop[y, x, 1] < 80, "the points are where the network expects them"
    assert np.abs(mended.astype(int) - pixels).mean() < 1.0, "what is not changed goes back as it was"


def detectable(points: Points) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in points.round()]


def test_only_the_face_changes_and_its_edge_fades() -> None:
    pixels = np.full((240, 300, 3), 100, np.uint8)
    mended = mend(pixels, [face_at(150, 120, 120)], lambda crop: np.full_like(crop, 200))
    assert mended[120, 150].tolist() == [200, 200, 200]
    assert (mended[:50] == 100).all() and (mended[:, :80] == 100).all()
    edge = mended[120, 80:150, 0].astype(int)
    assert (np.diff(edge) >= 0).all() and len(set(edge)) > 8


def test_several_faces_and_points_that_are_none() -> None:
    pixels = np.full((240, 400, 3), 100, np.uint8)
    none = np.full((5, 2), 50, np.float32)
    mended = mend(pixels, [face_at(100, 120, 90), none, face_at(300, 120, 90)], lambda crop: 255 - crop)
    assert mended[120, 100, 0] == mended[120, 300, 0] == 155 and mended[120, 200, 0] == 100


def test_a_face_at_the_edge_of_the_picture() -> None:
    crops = []

    def keep(crop: Pixels) -> Pixels:
        crops.append(crop)
        return crop

    pixels = smooth(100, 100)
    assert mend(pixels, [face_at(0, 0, 80)], keep).shape == pixels.shape
    assert crops[0][0, 0].tolist() == [132, 133, 135], "the grey that the networks were trained with"


def test_without_any_detector_a_sentence_says_what_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "_haar_file", lambda: None)
    with pytest.raises(NotFoundError, match=r"put detection_Resnet50_Final.pth .*yunet.* into .*face, then press"):
        find_faces(smooth(64, 64), work(tmp_path))


def test_a_file_that_is_no_detector_is_said(tmp_path: Path) -> None:
    (tmp_path / "GFPGAN").mkdir()
    torch.save({"weight": torch.zeros(2)}, tmp_path / "GFPGAN" / "detection_Resnet50_Final.pth")
    with pytest.raises(CheckpointError, match="no RetinaFace"):
        find_faces(smooth(64, 64), work(tmp_path))
    (tmp_path / "GFPGAN" / "detection_Resnet50_Final.pth").unlink()
    (tmp_path / "GFPGAN" / "face_detection_yunet_2023mar.onnx").write_bytes(b"no network")
    with pytest.raises(CheckpointError, match=r"yunet_2023mar.onnx cannot be used"):
        find_faces(smooth(64, 64), work(tmp_path))


class FakeYuNet:
    """Sees one face at a fixed place of what it is shown."""

    sizes: ClassVar[list[tuple[int, int]]] = []

    @classmethod
    def create(cls, file: str, config: str, size: tuple[int, int], *thresholds: float) -> FakeYuNet:
        cls.sizes.append(size)
        return cls()

    def detect(self, picture: Pixels) -> tuple[int, Any]:
        assert picture.shape[1::-1] == self.sizes[-1]
        points = [100, 100, 200, 100, 150, 150, 110, 200, 190, 200]
        return 1, np.array([[80, 80, 150, 150, *points, 0.9]], np.float32)


def test_a_large_picture_is_shown_to_yunet_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "FaceDetectorYN", FakeYuNet)
    (face,) = by_yunet(np.zeros((1920, 2560, 3), np.uint8), Path("yunet.onnx"))
    assert FakeYuNet.sizes[-1] == (1280, 960)
    assert face.tolist() == [[200, 200], [400, 200], [300, 300], [220, 400], [380, 400]]


def test_largest_first_and_too_small_ones_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = [face_at(50, 50, 60), face_at(20, 20, 15), face_at(90, 90, 80)]
    monkeypatch.setattr(detection, "_detect", lambda pixels, work: faces)
    found = find_faces(smooth(64, 64), work(tmp_path))
    assert [face.tolist() for face in found] == [faces[2].tolist(), faces[0].tolist()]


def test_the_points_in_a_box() -> None:
    points = points_of_box(100, 50, 200, 200)
    assert (points[0] < points[1])[0] and points[0, 1] == points[1, 1] < points[2, 1] < points[3, 1]
    assert ((points >= [100, 50]) & (points <= [300, 250])).all()


# -- restorers ---------------------------------------------------------------------------------------------------------


def test_the_names_that_people_know() -> None:
    assert sorted(RESTORERS) == ["CodeFormer", "GFPGAN", "RestoreFormer"]
    with pytest.raises(RequestError, match='did you mean "GFPGAN"'):
        find_restorer("GFPGANN", RESTORERS.values())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("GFPGAN", "GFPGAN needs a model file: put GFPGANv1.4.pth into .*GFPGAN, then press Refresh"),
        ("CodeFormer", "put codeformer.pth into .*Codeformer,"),
        ("RestoreFormer", "put RestoreFormer.pth into .*face,"),
    ],
)
def test_without_a_model_a_sentence_says_which_file_goes_where(name: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=sentence):
        restored(smooth(64, 64), RESTORERS[name], work(tmp_path))
    assert np.array_equal(restored(smooth(64, 64), RESTORERS[name], work(tmp_path), visibility=0), smooth(64, 64))


def test_of_several_versions_the_newest_is_taken(tmp_path: Path) -> None:
    (tmp_path / "GFPGAN").mkdir()
    for name in ("GFPGANv1.3.pth", "GFPGANv1.4.pth", "detection_Resnet50_Final.pth", "parsing_parsenet.pth"):
        (tmp_path / "GFPGAN" / name).write_bytes(b"")
    found = file_named(work(tmp_path).entries, "gfpgan")
    assert found is not None and found.path.name == "GFPGANv1.4.pth"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random RestoreFormer, and an ESRGAN under GFPGAN's name."""
    spandrel()
    from spandrel.architectures.ESRGAN import ESRGAN
    from spandrel.architectures.RestoreFormer import RestoreFormer

    folder = tmp_path_factory.mktemp("models")
    (folder / "face").mkdir()
    torch.manual_seed(2)
    network = RestoreFormer(
        n_embed=16, embed_dim=32, ch=32, ch_mult=(1, 1, 1, 1, 1, 1), num_res_blocks=1, z_channels=32
    )
    torch.save({"params_ema": network.state_dict()}, folder / "face" / "RestoreFormer.pth")
    torch.save(ESRGAN(num_filters=8, num_blocks=1).state_dict(), folder / "face" / "GFPGANv1.4.pth")
    return folder


def test_a_face_is_shown_to_the_network_and_laid_back(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    face = face_at(100, 80, 90)
    monkeypatch.setattr(detection, "_detect", lambda pixels, work: [face])
    pixels, here = smooth(200, 160), work(models)
    mended = restored(pixels, RESTORERS["RestoreFormer"], here)
    network = here.networks.load(models / "face" / "RestoreFormer.pth")
    assert np.array_equal(mended, mend(pixels, [face], network))
    assert np.abs(mended.astype(int) - pixels)[60:100, 80:120].mean() > 1
    assert np.array_equal(mended[:, :40], pixels[:, :40])


def test_a_picture_without_a_face_stays_and_loads_nothing(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "_detect", lambda pixels, work: [])
    assert np.array_equal(restored(smooth(64, 64), RESTORERS["GFPGAN"], work(models)), smooth(64, 64))


def test_another_network_under_the_name_is_said(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "_detect", lambda pixels, work: [face_at(32, 32, 40)])
    with pytest.raises(CheckpointError, match=r"GFPGANv1.4.pth is a network of the kind ESRGAN, not GFPGAN"):
        restored(smooth(64, 64), RESTORERS["GFPGAN"], work(models))


class Inverted:
    """A network of levels from -1 to 1 that turns them round, and tells how it was called."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, Any]] = []

    def __call__(self, x: torch.Tensor, **options: Any) -> tuple[torch.Tensor, None]:
        self.told.append(options)
        return -x, None


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("GFPGAN", {"return_rgb": False, "randomize_noise": False}),
        ("CodeFormer", {"adain": True, "weight": 0.25}),
    ],
)
def test_networks_that_see_levels_around_nought(architecture: str, options: dict[str, Any]) -> None:
    model = Inverted()
    descriptor = SimpleNamespace(
        architecture=SimpleNamespace(id=architecture), model=model, device=torch.device("cpu"), dtype=torch.float32
    )
    crop = smooth(SIDE, SIDE)
    assert np.array_equal(PictureNetwork(descriptor, "x").repaired(crop, 0.25), 255 - crop)
    assert model.told == [options]


@pytest.mark.slow
def test_a_real_gfpgan_of_random_weights_always_answers_the_same() -> None:
    package = spandrel()
    from spandrel.architectures.GFPGAN import GFPGAN

    torch.manual_seed(0)
    model = GFPGAN(out_size=512, num_style_feat=512, channel_multiplier=2, narrow=1, sft_half=True, fix_decoder=False)
    network = PictureNetwork(package.MAIN_REGISTRY.load(model.state_dict()).eval(), "gfpgan")
    crop = smooth(SIDE, SIDE)
    first = network.repaired(crop, 0.5)
    assert network.architecture == "GFPGAN" and first.shape == crop.shape
    assert np.array_equal(first, network.repaired(crop, 0.5))
    assert first.std() > 1
