"""The embedded model: what the prompt asks for is really in the pixels, and guidance pushes where it says.

Any edition must pass that draws at 128 px and knows the words of ``webui.training.starter_data.vocabulary`` used here.
The rules by which ``benchmarks/starter_model.py`` judges it are tested on pictures whose facts are known.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from webui.engine.executor import Control
from webui.engine.runner import Runner
from webui.request import GenerationRequest, Sampling, Size
from webui.settings import Settings
from webui.training.starter_data.compose import picture
from webui.training.starter_data.scene import Facts, allowed
from webui.training.starter_data.vocabulary import COLOURS, SCENES

Make = Callable[..., NDArray[np.float64]]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """(prompt, seed, negative, cfg_scale) -> pixels (128, 128, 3) of the embedded model."""
    runner = Runner.start(Settings(outputs_dir=tmp_path_factory.mktemp("outputs"), load_extensions=False))

    def made(prompt: str, seed: int = 1, negative: str = "", cfg_scale: float = 3.0) -> NDArray[np.float64]:
        request = GenerationRequest(
            prompt=prompt,
            negative_prompt=negative,
            size=Size(width=128, height=128),
            sampling=Sampling(sampler="Euler", steps=12, cfg_scale=cfg_scale),
            seed=seed,
            checkpoint="starter",
        )
        (path,) = runner.generate(request, lambda report: None, Control())
        return np.asarray(Image.open(path).convert("RGB"), dtype=np.float64)

    return made


def border(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    edge = np.concatenate([pixels[:5].reshape(-1, 3), pixels[:, :5].reshape(-1, 3), pixels[:, -5:].reshape(-1, 3)])
    return np.asarray(np.median(edge, axis=0))


def nearest(value: NDArray[np.float64]) -> str:
    return min(COLOURS, key=lambda name: float(np.linalg.norm(value - COLOURS[name])))


def distance(pixels: NDArray[np.float64], colour: str) -> float:
    return float(np.linalg.norm(border(pixels) - COLOURS[colour]))


@pytest.mark.parametrize(
    ("thing", "background"), [("red apple", "blue"), ("yellow star", "purple"), ("green heart", "white")]
)
def test_object_and_background_have_the_colours_named(make: Make, thing: str, background: str) -> None:
    pixels = make(f"a {thing} on a {background} background, flat style")
    assert nearest(border(pixels)) == background
    assert nearest(np.median(pixels[52:76, 52:76].reshape(-1, 3), axis=0)) == thing.split()[0]


def test_guidance_brings_the_picture_nearer_to_the_prompt(make: Make) -> None:
    prompt = "a panda on a green background, 3d style"
    without = np.mean([distance(make(prompt, seed, cfg_scale=0.0), "green") for seed in (1, 2, 3)])
    guided = np.mean([distance(make(prompt, seed, cfg_scale=3.0), "green") for seed in (1, 2, 3)])
    assert guided < without / 2


@pytest.mark.parametrize("colour", ["blue", "red"])
def test_the_negative_prompt_pushes_away_from_what_it_names(make: Make, colour: str) -> None:
    """An empty prompt leaves the background open; seeds whose picture happens to be far from the colour stay far."""
    seeds = (1, 2, 3, 4)
    negative = f"a cat on a {colour} background"
    towards = np.mean([distance(make(negative, seed), colour) for seed in seeds])
    away = np.mean([distance(make("", seed, negative), colour) for seed in seeds])
    plain = np.mean([distance(make("", seed), colour) for seed in seeds])
    assert towards < plain < away


@pytest.fixture(scope="module")
def judging() -> Iterator[SimpleNamespace]:
    """The benchmark's modules that need no trained network."""
    folder = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        from starter import cases, seeing, sprite_sheet

        yield SimpleNamespace(cases=cases, seeing=seeing, sprites=sprite_sheet.sprite_box())
    finally:
        sys.path.remove(folder)


def test_no_prompt_of_the_benchmark_but_for_scenes_could_be_a_training_caption(judging: SimpleNamespace) -> None:
    cases = [*judging.cases.all_cases(), *judging.cases.first_edition_cases()]
    assert {case.group for case in cases if allowed(case.facts)} == {"scenes"}
    assert len({case.prompt for case in judging.cases.all_cases()}) == len(judging.cases.all_cases())
    assert {case.group for case in judging.cases.quick_cases()} == {case.group for case in cases}


def test_the_rules_see_what_a_picture_shows(judging: SimpleNamespace) -> None:
    """True pictures of everything asked for: colour, place and scene always, count but for odd parts of a drawing."""
    counted = []
    for case in judging.cases.all_cases():
        facts, seeing = case.facts, judging.seeing
        pixels = np.array(picture(facts, Random(1), judging.sprites, 128))
        if facts.background == "scene":
            assert seeing.scene(pixels) == facts.background_name, case.prompt
        elif case.group in ("backgrounds", "colours", "styles"):
            assert seeing.background_colour(pixels) == facts.background_name, case.prompt
            assert seeing.background_error(pixels, facts.background_name) < 12, case.prompt
        if facts.place:
            assert seeing.place(pixels) == facts.place, case.prompt
        if facts.count > 1:
            counted.append(seeing.objects_seen(pixels) == facts.count)
    assert np.mean(counted) >= 0.95


def test_the_rules_do_not_see_what_is_not_there(judging: SimpleNamespace) -> None:
    """An empty picture, one object instead of three, a plain blue instead of the night."""
    seeing = judging.seeing
    empty = np.full((128, 128, 3), COLOURS["blue"], np.uint8)
    assert (seeing.place(empty), seeing.objects_seen(empty), seeing.extent(empty)) == ("", 0, 0.0)
    assert seeing.scene(empty) not in SCENES
    facts = Facts("circle", "red", "solid", "white", "flat", count=3)
    pictures = [
        np.array(picture(replace(facts, count=count), Random(2), judging.sprites, 128)) for count in (1, 2, 3, 4)
    ]
    assert [seeing.objects_seen(pixels) for pixels in pictures] == [1, 2, 3, 4]
