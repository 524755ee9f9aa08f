"""What tests of training share: pictures to learn, what tasks are made from, and a run from request to file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from webui.checkpoints.formats import BUILT_IN
from webui.checkpoints.hashes import HashCache
from webui.checkpoints.library import Library
from webui.device import choose
from webui.families.sd15 import StableDiffusion1
from webui.preprocessors.canny import register_preprocessors
from webui.training.data import read_data
from webui.training.kinds import Materials, TrainingKind, checkpoint, embedding, lora
from webui.training.moments import Exported, Moment
from webui.training.request import Data, TrainingRequest
from webui.training.session import Place, teach

KINDS = {kind.name: kind for part in (checkpoint, lora, embedding) for kind in part.register_training_kinds()}
Begin = Callable[..., Any]
Teach = Callable[..., Path]


def paint(folder: Path, colours: dict[str, tuple[int, int, int]], side: int = 64) -> Path:
    """A folder with a picture of one colour, a darker square in it, for each caption; returned."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (caption, colour) in enumerate(colours.items()):
        pixels = np.empty((side, side, 3), np.uint8)
        pixels[:] = colour
        low = side // 4 + 4 * (number % 3)
        pixels[low : low + side // 3, low : low + side // 3] = np.array(colour) // 2
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(caption, "utf-8")
    return folder


def asked(kind: str, pictures: Path, **changes: Any) -> TrainingRequest:
    """A request; ``data`` in ``changes`` are further fields of its data."""
    data = {"folder": str(pictures), "size": 64, **changes.pop("data", {})}
    return TrainingRequest(
        **{"kind": kind, "name": "made", "precision": "fp32", "data": Data(**data), "batch_size": 2, **changes}
    )


def materials(request: TrainingRequest, base: Path, cache: Path) -> Materials:
    """What a task of the request is made from, without a session."""
    file = BUILT_IN.open(base)
    return Materials(
        request=request,
        data=read_data(request.data, request.data.size or 64),
        model=StableDiffusion1().build(file, choose("cpu", "fp32", 1)),
        base=file,
        base_sha256="0" * 64,
        families={},
        preprocessors={},
        compute=choose("cpu", request.precision, 1),
        cache=cache,
        tell=lambda sentence: None,
    )


class Going:
    """Wishes of a run that nobody stops, or that is stopped when ``until`` says so of a moment."""

    def __init__(self, until: Callable[[Moment], bool] = lambda moment: False) -> None:
        self.until = until
        self.is_over = False

    def stop(self) -> bool:
        return self.is_over

    def pause(self) -> bool:
        return False

    def hear(self, moment: Moment) -> None:
        self.is_over = self.is_over or self.until(moment)


def place(folder: Path, base: Path, threads: int = 1) -> Place:
    """A models folder with the base in it, and a run's folder beside it."""
    models = folder / "models" / "Stable-diffusion"
    models.mkdir(parents=True, exist_ok=True)
    if not (models / base.name).exists():
        (models / base.name).symlink_to(base)
    return Place(
        folder=folder / "runs" / "run",
        library=Library(models.parent, HashCache(folder / "hashes.sqlite3")),
        kinds=KINDS,
        families={StableDiffusion1().name: StableDiffusion1()},
        compute=replace(choose("cpu", "fp32", 1), threads=threads),
        preprocessors={part.name: part for part in register_preprocessors()},
    )


def taught(request: TrainingRequest, where: Place, wishes: Going | None = None) -> Path | None:
    """The file that a run makes, None when it was stopped before its end."""
    wishes = wishes or Going()
    made = None
    for moment in teach(request, where, wishes):
        wishes.hear(moment)
        made = moment.path if isinstance(moment, Exported) else made
    return made


def kind_named(name: str) -> TrainingKind:
    """A registered kind."""
    return KINDS[name]
