"""Whole pictures of the embedded model: what a text names lands in its own half."""

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

Pixels = NDArray[np.float64]
PROMPT = "a red apple on a white background BREAK a blue car on a white background"
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pixels]:
    folder = tmp_path_factory.mktemp("regional")
    runner = Runner.start(Settings(outputs_dir=folder / "outputs", threads=1))

    def made(prompt: str, seed: int, **options: Any) -> Pixels:
        request = GenerationRequest(
            prompt=prompt,
            size=Size(width=128, height=128),
            sampling=Sampling(sampler="Euler", steps=10, cfg_scale=3.0),
            seed=seed,
            checkpoint="starter",
            modules=(ModuleUse(name="Regional", options=options),),
        )
        (path,) = runner.generate(request, lambda report: None, Control())
        return np.asarray(Image.open(Path(path)).convert("RGB"), dtype=np.float64)

    return made


def red_over_blue(half: Pixels) -> float:
    """How much more red than blue there is, from -255 to 255."""
    return float((half[..., 0] - half[..., 2]).mean())


@pytest.mark.parametrize("method", ["Attention", "Latent"])
def test_colours_land_in_their_halves(make: Callable[..., Pixels], method: str) -> None:
    seeds = SEEDS if method == "Attention" else SEEDS[:1]
    for seed in seeds:
        pixels = make(PROMPT, seed, method=method)
        assert red_over_blue(pixels[:, :64]) > 30 and red_over_blue(pixels[:, 64:]) < -15


def test_they_change_places_with_the_texts(make: Callable[..., Pixels]) -> None:
    left, right = PROMPT.split(" BREAK ")
    pixels = make(f"{right} BREAK {left}", SEEDS[0])
    assert red_over_blue(pixels[:, 64:]) > 30 and red_over_blue(pixels[:, :64]) < -15


def test_rows_are_above_each_other(make: Callable[..., Pixels]) -> None:
    pixels = make(PROMPT, SEEDS[0], mode="Rows")
    assert red_over_blue(pixels[:64]) > red_over_blue(pixels[64:]) + 20
