"""Model files in the form that the extension ``numpy_loader`` reads, and the forms with it installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from webui.checkpoints.formats import Formats
from webui.plugins.manager import Plugins

LOADER = (Path(__file__).resolve().parent / "numpy_loader.py").read_text("utf-8")
"""The extension."""


def write_archive(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> Path:
    """A file of these tensors; texts in it are the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: np.asarray(tensor) for name, tensor in tensors.items()}, **dict(metadata or {}))
    return path


def archive_formats(folder: Path) -> Formats:
    """The built-in forms and this one; the extension is put into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "numpy_loader.py").write_text(LOADER, "utf-8")
    return Plugins.load(folder).formats
