"""Which folders below ``models/ControlNetPreprocessor`` hold a network of depth.  No torch: the page's list asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from webui.checkpoints.library import ModelEntry

DPT, DEPTH_ANYTHING = "dpt", "depth_anything"
"""What ``config.json`` calls them."""
WEIGHTS = "model.safetensors"
SECOND = "v2"
"""Both versions of Depth Anything are the same network; only the folder's name tells them apart."""
LARGEST = 1 << 20
"""A longer ``.json`` is no configuration."""


def folder_of(kind: str, *, second: bool | None = None) -> Callable[[Sequence[ModelEntry]], ModelEntry | None]:
    """A ``Weights.find`` for the first folder with a network of this kind that tells relative depth.

    ``second`` asks for the second version or for the first, None for any.
    """

    def find(entries: Sequence[ModelEntry]) -> ModelEntry | None:
        return next((entry for entry in entries if _fits(entry)), None)

    def _fits(entry: ModelEntry) -> bool:
        if entry.path.name != WEIGHTS or second not in (None, SECOND in entry.name.casefold()):
            return False
        config = settings_of(entry.path.with_name("config.json"))
        return config.get("model_type") == kind and config.get("depth_estimation_type", "relative") == "relative"

    return find


def settings_of(path: Path) -> dict[str, Any]:
    """What a ``.json`` says by key; nothing where it is missing or no such file."""
    try:
        if path.stat().st_size > LARGEST:
            return {}
        said = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
