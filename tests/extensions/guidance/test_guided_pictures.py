"""Whole pictures of the embedded model: each method changes the picture, and it still shows what the prompt says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from webui.engine.executor import Control
from webui.engine.runner import Runner
from webui.request import GenerationRequest, ModuleUse, Sampling, Size
from webui.settings import Settings
from webui.training.starter_data.vocabulary import COLOURS

PROMPT = "a red apple on a blue background, 3d style"
HIGH_CFG = 12.0
METHODS: dict[str, dict[str, Any]] = {
    "FreeU": {"b1": 1.2, "b2": 1.3, "s1": 0.9, "s2": 0.5},
    "Perturbed-attention guidance": {"scale": 2.0},
    "Self-attention guidance": {"scale": 0.7},
    "Dynamic thresholding": {"mimic_scale": 3.0},
    "Guidance rescale": {"multiplier": 0.7},
}
SAMPLERS = ("Euler CFG++", "Euler a CFG++", "DPM++ 2M CFG++")

Pixels = NDArray[np.float64]
Make = Callable[..., Pixels]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    folder = tmp_path_factory.mktemp("guided")
    runner = Runner.start(Settings(outputs_dir=folder / "outputs", threads=1))

    def made(sampler: str = "Euler", cfg_scale: float = 3.0, **modules: dict[str, Any]) -> Pixels:
        request = GenerationRequest(
            prompt=PROMPT,
            size=Size(width=128, height=128),
            sampling=Sampling(sampler=sampler, steps=12, cfg_scale=cfg_scale),
            seed=1,
            checkpoint="starter",
            modules=tuple(ModuleUse(name=name, options=options) for name, options in modules.items()),
        )
        (path,) = runner.generate(request, lambda report: None, Control())
        return np.asarray(Image.open(Path(path)).convert("RGB"), dtype=np.float64)

    return made


def nearest(value: Pixels) -> str:
    return min(COLOURS, key=lambda name: float(np.linalg.norm(value - COLOURS[name])))


def shows_the_apple(pixels: Pixels) -> bool:
    edge = np.concatenate([pixels[:5].reshape(-1, 3), pixels[:, :5].reshape(-1, 3), pixels[:, -5:].reshape(-1, 3)])
    middle = pixels[52:76, 52:76].reshape(-1, 3)
    return (nearest(np.median(middle, axis=0)), nearest(np.median(edge, axis=0))) == ("red", "blue")


@pytest.fixture(scope="module")
def plain(make: Make) -> Pixels:
    return make()


@pytest.mark.parametrize("name", METHODS)
def test_the_picture_is_another_one_of_the_same_things(make: Make, plain: Pixels, name: str) -> None:
    cfg_scale = HIGH_CFG if name in ("Dynamic thresholding", "Guidance rescale") else 3.0
    pixels = make(cfg_scale=cfg_scale, **{name: METHODS[name]})
    assert np.abs(pixels - plain).mean() > 0.5
    assert shows_the_apple(pixels)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_samplers_show_what_the_prompt_says(make: Make, sampler: str) -> None:
    assert shows_the_apple(make(sampler, cfg_scale=7.0))


def clipped(pixels: Pixels) -> float:
    """The share of values at an end of the range."""
    return float(((pixels <= 2) | (pixels >= 253)).mean())


@pytest.mark.parametrize("name", ["Dynamic thresholding", "Guidance rescale"])
def test_a_high_cfg_scale_burns_less(make: Make, name: str) -> None:
    assert clipped(make(cfg_scale=HIGH_CFG, **{name: METHODS[name]})) < clipped(make(cfg_scale=HIGH_CFG)) / 2


def test_all_at_once_is_still_a_picture(make: Make) -> None:
    assert shows_the_apple(make(cfg_scale=6.0, **METHODS))
