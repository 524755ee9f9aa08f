"""A kind of training that is quick and slow at once: few numbers to learn, a moment's sleep a step.

Written as an extension, so that a training process finds it; it learns nothing of use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_model import picture_bytes, tiny_settings

from webui.settings import Settings

TOY = '''
from __future__ import annotations
import time
from dataclasses import dataclass
from webui.hooks import hookimpl
from webui.training.kinds import TrainingKind, Weights

@dataclass(frozen=True, kw_only=True)
class ToyOptions:
    """A toy.

    sleep_s: seconds a step takes at least
    width: how many numbers are learnt
    """
    sleep_s: float = 0.01
    width: int = 8

class Toy:
    initial = {}
    def __init__(self, options, materials):
        import torch
        self.options, self.materials = options, materials
        self.trained = {"x": torch.nn.Parameter(torch.zeros(options.width))}

    def loss(self, items, step, random):
        import torch
        time.sleep(self.options.sleep_s)
        wanted = sum(items) / len(items) + torch.randn(self.options.width, generator=random)
        return {"loss": (self.trained["x"] - wanted).square().mean()}

    def samples(self):
        import numpy as np
        return [np.full((8, 8, 3), 7, np.uint8)]

    def weights(self, trained):
        return Weights(dict(trained), {"modelspec.architecture": "toy"})

@hookimpl
def register_training_kinds():
    return [TrainingKind(name="toy", label="Toy", summary="Teach a few numbers.", folder="lora", options=ToyOptions,
                         begin=Toy, defaults={"optimiser.rate": 0.05, "batch_size": 2})]
'''


def toy_settings(folder: Path, tiny_checkpoint: Path) -> Settings:
    """Settings on a folder with the tiny checkpoint and the toy kind."""
    settings = tiny_settings(folder, tiny_checkpoint)
    settings.extensions_dir.mkdir(parents=True)
    (settings.extensions_dir / "toy.py").write_text(TOY, "utf-8")
    return settings


def toy_pictures(folder: Path, count: int = 5) -> Path:
    """A folder of pictures with captions; returned."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(picture_bytes(seed=number))
        (folder / f"{number}.txt").write_text(f"thing number {number}", "utf-8")
    return folder


def toy_request(pictures: Path, **changes: Any) -> dict[str, Any]:
    """Plain values of a training of the toy."""
    plain = {
        "kind": "toy",
        "name": "toy thing",
        "data": {"folder": str(pictures)},
        "steps": 12,
        "samples": {"every": 5},
        "save_every_s": 1.0,
    }
    return {**plain, **changes}
