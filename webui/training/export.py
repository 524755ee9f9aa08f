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
from webui.checkpoints.formats import BUILT_IN
from webui.checkpoints.hashes import file_sha256
from webui.errors import RequestError, WebUIError
from webui.training.kinds import Weights
from webui.training.request import TrainingRequest
from webui.training.state import NOT_IDENTITY, write_tensors

RECIPE_KEY = "webui.training"
"""The metadata under which a trained file tells how it was made (JSON)."""
PASSING = ("steps", "webui", "torch")
"""Parts of a recipe that may differ between two files of one training."""
STORED = torch.float16
"""Floats are stored so, as nearly every published file is."""
EXACT = ("betas", "alphas_cumprod")
"""But these: of the first step's noise, 1 - 0.99915, fp16 would leave one digit."""


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
        """The recipe as it is kept in the file.

        Folders are left out, which mean something on one machine alone; of files that options name there are the name
        and, in ``files``, the SHA-256.
        """
        plain = self.request.to_dict()
        for name in ("folder", "class_folder", "control_folder"):
            if plain["data"][name]:
                plain["data"][name] = Path(plain["data"][name]).name
        files = option_files(self.request)
        plain["options"] |= {name: path.name for name, path in files.items()}
        recipe: dict[str, Any] = {
            "request": plain,
            "data_sha256": self.data_digest,
            "pictures": self.pictures,
            "base": self.base,
            "base_sha256": self.base_sha256,
            "files": {name: file_sha256(path) for name, path in files.items()},
            "steps": self.steps,
            "webui": __version__,
            "torch": torch.__version__,
        }
        return json.dumps(recipe, sort_keys=True)


def option_files(request: TrainingRequest) -> dict[str, Path]:
    """The files that options of a request name, by option."""
    return {name: path for name, value in request.options.items() if (path := _file(value))}


def _file(option: object) -> Path | None:
    """The file that an option names, None when it names none."""
    if not isinstance(option, str) or not Path(option).suffix:
        return None
    path = Path(option).expanduser()
    return path if path.is_file() else None


def export(path: Path, weights: Weights, recipe: TrainingRecipe) -> Path:
    """Write the file with its metadata; floats in fp16.  Raises OutputError, RequestError.

    A file of that name with another recipe, or that a person put there, is never replaced.
    """
    require_free(path, recipe)
    metadata: Mapping[str, str] = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": recipe.request.name,
        "modelspec.implementation": f"webui {__version__}",
        **weights.metadata,
        RECIPE_KEY: recipe.to_json(),
    }
    tensors = {n: tensor if n in EXACT else stored(tensor) for n, tensor in weights.tensors.items()}
    write_tensors(path, tensors, metadata)
    return path


def require_free(path: Path, recipe: TrainingRecipe) -> None:
    """Raise RequestError when a file that was not made by this recipe has the name."""
    if not path.exists():
        return
    try:
        is_own = _essence(BUILT_IN.read_header(path).metadata.get(RECIPE_KEY, "")) == _essence(recipe.to_json())
    except (WebUIError, ValueError, TypeError, KeyError):
        is_own = False
    if not is_own:
        raise RequestError(
            f"There is already a file {path.name} in {path.parent.name}, which this training did not make; "
            "give the training another name, or move that file away."
        )


def _essence(recipe: str) -> dict[str, Any]:
    """What of a recipe's JSON tells one training from another.  Raises ValueError, TypeError, KeyError."""
    plain: dict[str, Any] = json.loads(recipe)
    request = {name: value for name, value in plain["request"].items() if name not in NOT_IDENTITY}
    return {**{name: value for name, value in plain.items() if name not in PASSING}, "request": request}


def stored(tensor: Tensor) -> Tensor:
    """The tensor as it is kept in a file: floats in fp16, on the CPU."""
    tensor = tensor.detach().cpu()
    return tensor.to(STORED) if tensor.is_floating_point() and tensor.numel() else tensor
