"""Networks of preprocessors: against another program's answers, the papers' formulas, and what is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from controlnet_parts import part
from network_preprocessor_files import LARGE, NAMES, SMALL, save
from peer_weights import PICTURE, sampled, seeded

from webui.checkpoints.formats import BUILT_IN
from webui.errors import CheckpointError, RequestError
from webui.preprocessors import Preprocessor

PEER = json.loads((Path(__file__).parent / "controlnet_peer" / "numbers.json").read_text("utf-8"))
CPU = torch.device("cpu")
LOOKS = {"hed": "edges", "line_drawing": "drawing", "pidinet": "edges"}
OF_KIND = {"hed": "ControlNetHED.pth", "line_drawing": "sk_model.pth", "pidinet": "table5_pidinet.pth"}
made = part("network_preprocessors")
ALL = [one for one in made.network_preprocessors() if "Depth" not in one.tags]


def named(name: str) -> Preprocessor:
    return next(one for one in ALL if one.name == name)


def run(one: Preprocessor, pixels: np.ndarray, folder: Path) -> np.ndarray:
    assert one.weights is not None
    network = one.weights.build(BUILT_IN.open(save(folder, one.weights.file)), CPU)
    with torch.inference_mode():
        picture: np.ndarray = one.run(pixels, {}, network)
    return picture


@pytest.mark.parametrize("kind", LARGE)
def test_a_network_answers_as_another_program_does(kind: str, tmp_path: Path) -> None:
    network = part(kind).load(BUILT_IN.open(save(tmp_path, OF_KIND[kind], LARGE[kind])), CPU)
    with torch.inference_mode():
        found = sampled(getattr(part(kind), LOOKS[kind])(network, PICTURE))
    assert np.std(PEER[kind]["sample"]) > 0.01
    assert np.allclose(found["sample"], PEER[kind]["sample"], rtol=0, atol=1e-5)
    assert abs(found["mean"] - PEER[kind]["mean"]) < 1e-5


def differences(kind: str, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """What a convolution of differences is by the paper's formulas: pixel pairs, weighted and summed."""
    height, width = x.shape[2:]
    padded = F.pad(x, (2, 2, 2, 2))
    steps = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
    around = [steps[place] for place in (0, 1, 2, 5, 8, 7, 6, 3)]  # clockwise

    def at(row: int, column: int) -> torch.Tensor:
        return padded[:, :, 2 + row : 2 + row + height, 2 + column : 2 + column + width]

    total = torch.zeros(x.shape[0], weight.shape[0], height, width)
    for place, (row, column) in enumerate(steps):
        if kind == "central":
            pair = at(row, column) - at(0, 0)
        elif (row, column) == (0, 0):
            continue
        else:  # the neighbour that comes next, clockwise, is compared with this one
            following = around[(around.index((row, column)) + 1) % 8]
            pair = at(row, column) - at(*following)
        total += torch.einsum("oi,bihw->bohw", weight.flatten(2)[:, :, place], pair)
    return total


@pytest.mark.parametrize("kind", ["central", "angular"])
def test_a_convolution_of_differences_is_a_plain_one_of_other_weights(kind: str) -> None:
    weight, x = torch.randn(5, 3, 3, 3), torch.randn(2, 3, 7, 9)
    plain = F.conv2d(x, getattr(part("pidinet"), kind)(weight), padding=1)
    assert torch.allclose(plain, differences(kind, weight, x), atol=1e-5)


def test_a_radial_one_compares_what_is_two_pixels_out_with_what_is_one() -> None:
    plain = part("pidinet").radial(torch.arange(9.0).view(1, 1, 3, 3))[0, 0]
    expected = torch.tensor(
        [[1, 0, 2, 0, 3], [0, -1, -2, -3, 0], [4, -4, 0, -5, 5], [0, -6, -7, -8, 0], [6, 0, 7, 0, 8]]
    )
    assert torch.equal(plain, expected.float())


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_every_one_makes_a_picture_of_the_same_size_and_no_other_twice(one: Preprocessor, tmp_path: Path) -> None:
    pixels = PICTURE[:50, :77].copy()
    pixels.setflags(write=False)
    picture = run(one, pixels, tmp_path)
    assert picture.shape == pixels.shape and picture.dtype == np.uint8
    assert np.array_equal(picture, run(one, pixels, tmp_path))
    assert (picture == picture[:, :, :1]).all()
    with pytest.raises(RequestError, match="option of"):
        one.run(pixels, {"nothing": 1}, None)


def test_borders_are_repeated_not_black(tmp_path: Path) -> None:
    whole = np.pad(PICTURE[:50, :77], ((0, 14), (0, 51), (0, 0)), mode="edge")
    found = run(named("softedge_hed"), PICTURE[:50, :77], tmp_path)
    assert np.array_equal(found, run(named("softedge_hed"), whole, tmp_path)[:50, :77])


def test_safe_edges_have_few_levels() -> None:
    shares = np.linspace(0, 1, 1000).reshape(10, 100)
    levels = made.softedge_safe(shares)
    assert sorted(set(levels.ravel())) == [0, 127, 255]
    assert levels[shares < 1 / 3].max() == 0 and levels[shares > 0.67].min() == 255


def test_a_scribble_is_strokes_along_ridges() -> None:
    shares = np.zeros((64, 96))
    shares[24:40] = 1.0
    shares[:, 80:] = 0.4  # too faint for a stroke
    drawn = made.scribbled(shares)
    assert set(np.unique(drawn)) == {0, 255}
    middle = np.flatnonzero(drawn[:, 40])
    assert {31, 32} <= set(middle) and middle[0] > 14 and middle[-1] < 49 and (np.diff(middle) == 1).all()
    assert not drawn[50:].any()


def test_a_drawing_becomes_white_lines_on_black() -> None:
    assert made.inverted(np.array([[0.0, 1.0]])).tolist() == [[255, 0]]


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    wrong = BUILT_IN.open(save(tmp_path, "sk_model.pth"))
    for kind in ("hed", "pidinet"):
        with pytest.raises(CheckpointError, match=r"sk_model\.pth is no (HED|PiDiNet)"):
            part(kind).load(wrong, CPU)
    with pytest.raises(CheckpointError, match="is no drawer of lines"):
        part("line_drawing").load(BUILT_IN.open(save(tmp_path, "ControlNetHED.pth")), CPU)


@pytest.mark.parametrize("kind", SMALL)
def test_a_file_that_lacks_a_tensor_is_refused(kind: str, tmp_path: Path) -> None:
    path = save(tmp_path, OF_KIND[kind])
    state = torch.load(path, weights_only=True)
    tensors = state.get("state_dict", state)
    del tensors[max(tensors)]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="missing"):
        part(kind).load(BUILT_IN.open(path), CPU)


def test_names_files_and_tags() -> None:
    known = [name for one in (*ALL, *part("preprocessors").preprocessors()) for name in (one.name, *one.aliases)]
    assert len(set(known)) == len(known)
    assert {one.weights.file for one in ALL if one.weights} >= set(NAMES)
    assert all(one.needs_worker and one.needs_model and one.scaled and one.tags for one in ALL)


def test_weights_drawn_twice_are_the_same() -> None:
    shapes = {"b": (2, 3), "a": (4,)}
    assert all(torch.equal(one, two) for one, two in zip(seeded(shapes).values(), seeded(shapes).values(), strict=True))


def test_a_picture_of_one_pixel_is_one(tmp_path: Path) -> None:
    for one in ALL:
        assert run(one, np.full((1, 1, 3), 90, np.uint8), tmp_path).shape == (1, 1, 3)


def test_ridges_are_those_of_opencv() -> None:
    """The strokes of a picture, by a slow second way: each pixel against its two neighbours in four directions."""
    levels = cv2.GaussianBlur(PICTURE[:, :, 0], (0, 0), 2.0)
    levels = cv2.normalize(levels, None, 0, 255, cv2.NORM_MINMAX)
    soft = cv2.GaussianBlur(levels.astype(np.float32), (0, 0), 3.0)
    padded = np.pad(soft, 1, constant_values=-1)
    height, width = soft.shape
    ridge = np.zeros(soft.shape, bool)
    for row, column in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = padded[1 + row : 1 + row + height, 1 + column : 1 + column + width]
        other = padded[1 - row : 1 - row + height, 1 - column : 1 - column + width]
        ridge |= (soft >= one) & (soft >= other)
    drawn = np.where(ridge & (soft > 127), 255, 0).astype(np.uint8)
    assert drawn.any()
    assert np.array_equal(made.scribble(levels) > 0, cv2.GaussianBlur(drawn, (0, 0), 3.0) > 4)
