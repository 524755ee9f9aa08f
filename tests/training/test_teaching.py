"""Two minutes of teaching on a CPU: each kind lowers the loss and moves its samples towards the pictures it learns.

Losses before and after are of the same questions (items, timesteps, noise).  Base: the embedded model; from scratch a
smaller UNet between its text encoder and its VAE.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from training_cases import KINDS, Going, asked, materials, paint

from webui.checkpoints import keys
from webui.checkpoints.formats import BUILT_IN
from webui.checkpoints.safetensors import write_file
from webui.networks.unet import UNet, UNetConfig
from webui.training.kinds import Task
from webui.training.loop import Run, generator
from webui.training.order import Order
from webui.training.request import Noise, Optimiser, Samples, TrainingRequest

pytestmark = pytest.mark.slow

STARTER = Path(__file__).resolve().parents[2] / "models" / "Stable-diffusion" / "starter.safetensors"
OTHER = "a red apple on a blue background, 3d style"
LIME, LEMON, GREEN = (20, 230, 60), (240, 255, 110), (30, 190, 60)
SMALL = UNetConfig(
    model_channels=32,
    time_channels=128,
    channels=(32, 64),
    input_depths=((1,), (1,)),
    output_depths=((1, 1), (1, 1)),
    context_channels=128,
    heads=2,
    norm_groups=8,
)
Colours = NDArray[np.float64]


@dataclass(frozen=True)
class Told:
    """What a teaching did: losses of the same questions, and the mean colour of each sample prompt's picture."""

    losses: tuple[float, float]
    colours: tuple[Colours, Colours]
    data: Colours

    def approach(self, prompt: int) -> float:
        """How much of the way to the pictures' mean colour the samples of a prompt went: 1 is all of it."""
        before, after = (np.linalg.norm(colours[prompt] - self.data) for colours in self.colours)
        return float(1 - after / before)

    def moved(self, prompt: int) -> float:
        """How far a prompt's mean colour moved, in levels."""
        return float(np.linalg.norm(self.colours[1][prompt] - self.colours[0][prompt]))


def teach(request: TrainingRequest, base: Path, folder: Path) -> Told:
    made = materials(request, base, folder / "cache")
    kind = KINDS[request.kind]
    task = kind.begin(kind.options(**request.options), made)
    order = Order.of(made.data.items, request.batch_size, request.seed)
    run = Run(request, task, order, folder / "run", "x", export=lambda weights, step: folder / "made.safetensors")
    run.threads = 1
    before = _loss(task, order), _colours(task)
    for _ in run.go(Going()):
        pass
    after = _loss(task, order), _colours(task)
    pictures = np.stack([made.data.pixels(item) for item in range(len(made.data.items))])
    return Told((before[0], after[0]), (before[1], after[1]), pictures.mean(axis=(0, 1, 2)))


def _loss(task: Task, order: Order, batches: int = 8) -> float:
    with torch.no_grad():
        return float(
            np.mean([task.loss(order.batch(step), step, generator(99, step, 0))["loss"] for step in range(batches)])
        )


def _colours(task: Task) -> Colours:
    with torch.inference_mode():
        return np.stack([picture.mean(axis=(0, 1)) for picture in task.samples()])


def request_for(kind: str, pictures: Path, prompts: tuple[str, ...], **changes: Any) -> TrainingRequest:
    return asked(
        kind,
        pictures,
        **{
            "name": "zorp",
            "batch_size": 4,
            "noise": Noise(caption_dropout=0.05),
            "samples": Samples(prompts=prompts, every=0, steps=8, cfg_scale=2.0),
            **changes,
        },
    )


def striped(folder: Path) -> Path:
    """Four pictures in stripes of lime and lemon, which the embedded model has never drawn, called "a zorp"."""
    paint(folder, {f"a zorp {n}": LIME for n in range(4)})
    for number in range(4):
        rows = (np.arange(64) + 4 * number) // 8 % 2
        pixels = np.where(rows[:, None, None] == 0, LIME, LEMON).astype(np.uint8).repeat(64, axis=1)
        _save(folder / f"{number}.png", pixels)
        (folder / f"{number}.txt").write_text("a zorp", "utf-8")
    return folder


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path)


def small_base(path: Path) -> Path:
    """The embedded model with a smaller UNet whose weights are all zero."""
    file = BUILT_IN.open(STARTER)
    tensors = file.load("", torch.float32, torch.device("cpu"), lambda name: not name.startswith(keys.UNET_PREFIX))
    tensors |= {keys.UNET_PREFIX + name: torch.zeros_like(tensor) for name, tensor in UNet(SMALL).state_dict().items()}
    config = json.loads(file.header.metadata["starter.config"])
    config["unet"] = {"num_heads": SMALL.heads, "norm_groups": SMALL.norm_groups}
    write_file(path, tensors, {**file.header.metadata, "starter.config": json.dumps(config)})
    return path


def test_from_scratch_words_come_to_mean_colours(tmp_path: Path) -> None:
    colours = {"a red square": (225, 25, 25), "a blue square": (25, 25, 225)}
    pictures = paint(tmp_path / "pictures", colours)
    request = request_for(
        "checkpoint",
        pictures,
        tuple(colours),
        steps=150,
        batch_size=8,
        optimiser=Optimiser(name="Muon", rate=1e-2, warmup=5),
        options={"fresh": True},
    )
    told = teach(request, small_base(tmp_path / "base.safetensors"), tmp_path)
    assert told.losses[1] < 0.4 * told.losses[0]
    redness = [float(colour[0] - colour[2]) for colour in told.colours[1]]
    before = [float(colour[0] - colour[2]) for colour in told.colours[0]]
    assert abs(before[0] - before[1]) < 5
    assert redness[0] > 60 and redness[1] < -60


def test_a_lora_teaches_a_look_by_its_word(tmp_path: Path) -> None:
    request = request_for(
        "lora",
        striped(tmp_path / "pictures"),
        ("a zorp", OTHER),
        steps=40,
        optimiser=Optimiser(rate=2e-3, warmup=5),
    )
    told = teach(request, STARTER, tmp_path)
    assert told.losses[1] < 0.8 * told.losses[0]
    assert told.approach(0) > 0.5
    assert told.moved(1) < 0.15 * told.moved(0)


def test_an_embedding_teaches_a_look_to_a_word(tmp_path: Path) -> None:
    pictures = paint(tmp_path / "pictures", {"one": GREEN, "two": GREEN, "three": GREEN})
    request = request_for(
        "embedding",
        pictures,
        ("zorp", OTHER),
        steps=60,
        optimiser=Optimiser(rate=3e-2, warmup=5),
        options={"templates": "{word}"},
    )
    told = teach(request, STARTER, tmp_path)
    assert told.losses[1] < 0.97 * told.losses[0]
    assert told.approach(0) > 0.3
    assert told.moved(1) == 0
