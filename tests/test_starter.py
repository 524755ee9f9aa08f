"""The embedded model: what the prompt asks for is really in the pixels, and guidance pushes where it says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from webui.engine.executor import Control
from webui.engine.runner import Runner
from webui.request import GenerationRequest, Sampling, Size
from webui.settings import Settings

COLOURS = {
    "red": (220, 38, 38), "orange": (245, 130, 32), "yellow": (250, 208, 40), "green": (46, 160, 67),
    "blue": (40, 90, 220), "purple": (135, 60, 190), "pink": (245, 130, 180), "white": (245, 245, 245),
}  # fmt: skip
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
