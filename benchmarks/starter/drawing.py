"""Draws the cases through the product's own runner, and sends pictures through the model's VAE and back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from PIL import Image
from starter.cases import Case
from starter.seeing import SIDE

from webui.engine.executor import Control
from webui.engine.runner import Runner
from webui.latents import codec
from webui.request import GenerationRequest, Sampling, Size
from webui.result import Pixels
from webui.settings import Settings
from webui.training.starter_data.compose import example
from webui.training.starter_data.sprites import SpriteBox

FRESH = 20_001
"""Seed of the pictures that test the VAE; the training data's seeds are small."""


@dataclass(frozen=True)
class Artist:
    """A model file, loaded, and how it is asked to draw."""

    runner: Runner
    name: str
    sampling: Sampling
    side: int

    def pictures(self, case: Case, seed: int, count: int) -> tuple[list[Pixels], float]:
        """``count`` pictures (128, 128, 3) of a case with seeds from ``seed`` on, and the seconds that all took."""
        request = GenerationRequest(
            prompt=case.prompt,
            size=Size(width=self.side, height=self.side),
            sampling=self.sampling,
            seed=seed,
            batch_size=count,
            checkpoint=self.name,
        )
        started = time.perf_counter()
        paths = list(self.runner.generate(request, lambda report: None, Control()))
        seconds = time.perf_counter() - started
        return [_judged(np.array(Image.open(path).convert("RGB"))) for path in paths], seconds

    def vae_psnr(self, sprites: SpriteBox, count: int) -> list[float]:
        """Peak signal-to-noise ratio in dB of each of ``count`` fresh pictures of the data set's kind."""
        model = self.runner.models.checkpoint(self.runner.library.find(self.name), self.runner.compute)
        found = []
        for index in range(count):
            pixels = np.array(example(FRESH, index, sprites, self.side).picture)
            with torch.inference_mode():
                mean = codec.encode(pixels, model).mean.float() * model.scale_factor
                back = codec.decode(mean, model)
            error = np.mean((back.astype(np.float64) - pixels) ** 2)
            found.append(float(10 * np.log10(255**2 / max(error, 1e-9))))
        return found


def _judged(pixels: Pixels) -> Pixels:
    """The picture at the size that the judges know."""
    if pixels.shape[0] == SIDE:
        return pixels
    return np.asarray(cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


@contextmanager
def artist(file: Path, sampling: Sampling, side: int, threads: int | None) -> Iterator[Artist]:
    """An artist with a models folder that holds nothing but this file, warmed up by one picture."""
    with TemporaryDirectory() as folder:
        checkpoints = Path(folder) / "models" / "Stable-diffusion"
        checkpoints.mkdir(parents=True)
        shutil.copyfile(file, checkpoints / file.name)
        runner = Runner.start(
            Settings(
                models_dir=checkpoints.parent,
                outputs_dir=Path(folder) / "outputs",
                threads=threads,
                load_extensions=False,
            )
        )
        runner.warm_up()
        yield Artist(runner, file.stem, sampling, side)


def draw(artist: Artist, cases: Sequence[Case], seeds: int) -> tuple[list[list[Pixels]], list[float]]:
    """Rounds of pictures, one picture for each case in each of ``seeds`` rounds, and the seconds of each picture."""
    rounds: list[list[Pixels]] = [[] for _ in range(seeds)]
    seconds = []
    for i, case in enumerate(cases):
        made, taken = artist.pictures(case, seed=1 + i * seeds, count=seeds)
        seconds.append(taken / seeds)
        for round_, pixels in zip(rounds, made, strict=True):
            round_.append(pixels)
    return rounds, seconds
