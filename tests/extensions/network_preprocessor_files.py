"""Files of preprocessors' networks, tiny or as large as the published ones, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from controlnet_parts import part
from peer_weights import seeded
from torch import nn

LARGE = {"hed": ((64, 128, 256, 512, 512), (2, 2, 3, 3, 3)), "line_drawing": (64, 3), "pidinet": (60, 24, 4)}
SMALL = {"hed": ((4, 6, 8, 10, 10), (2, 2, 3, 3, 3)), "line_drawing": (4, 2), "pidinet": (4, 3, 2)}
NAMES = {
    "ControlNetHED.pth": "hed",
    "sk_model.pth": "line_drawing",
    "sk_model2.pth": "line_drawing",
    "table5_pidinet.pth": "pidinet",
}


def network(kind: str, sizes: tuple[Any, ...]) -> nn.Module:
    classes = {"hed": "HED", "line_drawing": "LineDrawer", "pidinet": "PiDiNet"}
    with torch.device("meta"):
        made: nn.Module = getattr(part(kind), classes[kind])(*sizes)
    return made


def file_shapes(kind: str, sizes: tuple[Any, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published file: there every convolution of differences is one of 3 x 3."""
    shapes = {name: tuple(one.shape) for name, one in network(kind, sizes).state_dict().items()}
    return {name: (*shape[:2], 3, 3) if shape[2:] == (5, 5) else shape for name, shape in shapes.items()}


def save(folder: Path, name: str, sizes: tuple[Any, ...] | None = None, seed: int = 7) -> Path:
    """A file as it is published, PiDiNet's in its trainer's wrapping."""
    kind = NAMES[name]
    state = seeded(file_shapes(kind, sizes or SMALL[kind]), seed)
    whole: Any = {"state_dict": {f"module.{key}": one for key, one in state.items()}} if kind == "pidinet" else state
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(whole, folder / name)
    return folder / name
