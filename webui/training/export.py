"""weights -> a file that this and other programs load, with the recipe of how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from webui import __version__
from webui.training.kinds import Weights
from webui.training.request import TrainingRequest
from webui.training.state import write_tensors

RECIPE_KEY = "webui.training"
"""The metadata under which a trained file tells how it was made (JSON)."""
STORED = torch.float16
"""Floats are stored so, as nearly every published file is."""


@dataclass(frozen=True)
class TrainingRecipe:
    """All that is needed to make a file again: the request, and what it was applied to."""

    request: TrainingRequest
    data_digest: str
    pictures: int
    base: str
    base_sha256: str
    steps: int

    def to_json(self) -> str:
        """The recipe as it is kept in the file; folders are left out, which mean something on one machine alone."""
        plain = self.request.to_dict()
        for name in ("folder", "class_folder", "control_folder"):
            if plain["data"][name]:
                plain["data"][name] = Path(plain["data"][name]).name
        recipe: dict[str, Any] = {
            "request": plain,
            "data_sha256": self.data_digest,
            "pictures": self.pictures,
            "base": self.base,
            "base_sha256": self.base_sha256,
            "steps": self.steps,
            "webui": __version__,
            "torch": torch.__version__,
        }
        return json.dumps(recipe, sort_keys=True)


def export(path: Path, weights: Weights, recipe: TrainingRecipe) -> Path:
    """Write the file with its metadata; floats in fp16.  Raises OutputError."""
    metadata: Mapping[str, str] = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": recipe.request.name,
        "modelspec.implementation": f"webui {__version__}",
        **weights.metadata,
        RECIPE_KEY: recipe.to_json(),
    }
    write_tensors(path, {name: stored(tensor) for name, tensor in weights.tensors.items()}, metadata)
    return path


def stored(tensor: Tensor) -> Tensor:
    """The tensor as it is kept in a file: floats in fp16, on the CPU."""
    tensor = tensor.detach().cpu()
    return tensor.to(STORED) if tensor.is_floating_point() and tensor.numel() else tensor
