"""The lessons beside the data set show what their captions say, leave out what their measures ask for, and repeat."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from webui.training.data import read_data
from webui.training.request import Data, TrainingRequest
from webui.training.starter_data import lessons
from webui.training.starter_data.artwork import ArtworkError
from webui.training.starter_data.dataset import Sprites
from webui.training.starter_data.lessons import ANIMALS, LINES, MINT, PAPER, TAUGHT, UNTAUGHT, blueprint, write
from webui.training.starter_data.scene import Facts, allowed
from webui.training.starter_data.sprites import Rgba, SpriteBox
from webui.training.starter_data.vocabulary import COLOUR_NAMES, COLOURS, DRAWINGS

RECIPES = Path(__file__).parents[2] / "models" / "recipes"
SIDE = 64


def disc(colour: tuple[int, int, int], side: int = 64) -> Rgba:
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[np.hypot(rows, columns) <= side / 2] = (*colour, 255)
    return pixels


@pytest.fixture(scope="module")
def sprites() -> Sprites:
    return {name: {"3d": disc((255, 0, 255)), "flat": disc((255, 0, 255))} for name in (*DRAWINGS, "zorb")}


@pytest.fixture(scope="module")
def written(sprites: Sprites, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lessons")
    write(sprites, out, seed=1, side=SIDE)
    return out


def shown(folder: Path) -> list[tuple[dict[str, object], str, NDArray[np.uint8]]]:
    lines = map(json.loads, (folder / "metadata.jsonl").read_text("utf-8").splitlines())
    return [(line["facts"], line["text"], np.asarray(Image.open(folder / line["file_name"]))) for line in lines]


def border(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return np.asarray(np.median(edge, axis=0))


def test_the_trainer_reads_every_lesson(written: Path) -> None:
    for lesson in lessons.LESSONS:
        data = read_data(Data(folder=str(written / lesson.name)), SIDE)
        assert len(data.items) == lesson.count and not data.left_out
        assert all(item.caption for item in data.items)


def test_the_same_lessons_come_out_again_and_others_are_not_mixed_in(
    written: Path, sprites: Sprites, tmp_path: Path
) -> None:
    write(sprites, tmp_path, seed=1, side=SIDE)
    files = [path.relative_to(written) for path in written.rglob("*") if path.is_file()]
    assert len(files) > 600
    assert all((written / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)
    with pytest.raises(ArtworkError, match="other lessons"):
        write(sprites, tmp_path, seed=2, side=SIDE)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").write_text("mine", "utf-8")
    with pytest.raises(ArtworkError, match="other files"):
        write(sprites, tmp_path / "other", seed=1, side=SIDE)


def test_a_blueprint_has_two_colours_and_what_lies_between(written: Path) -> None:
    way = np.array(LINES, float) - PAPER
    for facts, text, pixels in shown(written / "blueprint")[::10]:
        share = (pixels.astype(float) - PAPER) @ way / (way @ way)
        assert np.abs(pixels - (PAPER + share[..., None] * way)).max() < 1.5  # rounding, and nothing else
        assert text.endswith(", blueprint sketch")
        assert facts["object"] in TAUGHT


def test_a_blueprint_draws_outlines_where_the_object_stands(sprites: Sprites) -> None:
    side = 128
    facts = Facts("cat", None, "plain", "white", "line", size="big")
    pixels = np.asarray(blueprint(facts, Random(1), SpriteBox(sprites), side), np.int32)
    light = pixels[..., 0] > (PAPER[0] + LINES[0]) / 2
    rows, columns = np.nonzero(light)
    away = np.hypot(rows - side / 2, columns - side / 2)
    assert 0.40 * side < away.min() and away.max() < 0.72 * side  # the disc's rim and the frame, not its inside
    assert light[: side // 2].any() and light[side // 2 :].any()


def test_the_character_stands_on_every_colour_in_both_finishes_and_in_no_scene(written: Path) -> None:
    seen = set()
    for facts, text, pixels in shown(written / "zorb"):
        assert "zorb" in text
        assert facts["background"] == "solid"
        assert np.abs(border(pixels) - COLOURS[str(facts["background_name"])]).max() <= 6
        seen.add((facts["background_name"], facts["style"]))
    assert len(seen) == 2 * len(COLOUR_NAMES)


def test_class_pictures_are_other_animals_and_no_held_out_combination(written: Path) -> None:
    for facts, text, _ in shown(written / "zorb-class"):
        assert facts["object"] in ANIMALS and "zorb" not in text
        assert allowed(Facts(**facts))  # type: ignore[arg-type]


def test_mint_is_behind_objects_and_far_from_every_named_colour(written: Path) -> None:
    assert all(np.abs(np.array(MINT) - colour).max() > 40 for colour in COLOURS.values())
    for facts, text, pixels in shown(written / "mint"):
        assert "mint background" in text and facts["object"] not in UNTAUGHT
        assert np.abs(border(pixels) - MINT).max() == 0


def test_objects_left_out_are_a_quarter() -> None:
    assert set(TAUGHT) | set(UNTAUGHT) == set(DRAWINGS) and not set(TAUGHT) & set(UNTAUGHT)
    assert len(UNTAUGHT) == len(DRAWINGS) // 4


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.json")), ids=lambda path: path.stem)
def test_a_recipe_is_a_request_with_no_path_of_one_machine(path: Path) -> None:
    plain = json.loads(path.read_text("utf-8"))
    request = TrainingRequest.from_dict(plain)
    assert request.name == path.stem
    named = [request.data.folder, request.data.class_folder, *map(str, request.options.values())]
    assert not any(text.startswith(("/", "~")) for text in named)
    folders = {f"lessons/{lesson.name}" for lesson in lessons.LESSONS} | {"data", "data-canny"}
    assert {request.data.folder, request.data.class_folder} <= folders | {""}


def test_every_recipe_names_a_kind_and_its_options() -> None:
    from webui.plugins.manager import Plugins
    from webui.training.session import kind_of

    kinds = Plugins.load(None).training_kinds
    recipes = sorted(RECIPES.glob("*.json"))
    assert {"starter-2", "starter-vae", "starter-clip", "blueprint", "zorb", "mint"} <= {path.stem for path in recipes}
    for path in recipes:
        kind_of(TrainingRequest.from_dict(json.loads(path.read_text("utf-8"))), kinds)
