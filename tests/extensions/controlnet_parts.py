"""The bundled extension "controlnet", loaded as the application loads it, and its files by name."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from webui.plugins.manager import Plugins

FOLDER = Path(__file__).resolve().parents[2] / "extensions"


@cache
def plugins() -> Plugins:
    return Plugins.load(FOLDER)


def part(name: str) -> ModuleType:
    """One file of the extension."""
    import importlib

    plugins()
    assert "webui_extensions.controlnet" in sys.modules
    return importlib.import_module(f"webui_extensions.controlnet.{name}")
