"""The bundled scripts extension as the program loads it, and a way to put it into a test's own extensions folder."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from types import ModuleType

from webui.plugins.discovery import BUNDLED
from webui.plugins.manager import Plugins

EXTENSIONS = Path(__file__).resolve().parents[1] / "extensions"
PLUGINS = Plugins.load(EXTENSIONS, disabled=frozenset(BUNDLED) - {"scripts"})
SCRIPTS = list(PLUGINS.scripts.values())


def file(name: str) -> ModuleType:
    """A file of the extension as the module that it was loaded as."""
    return importlib.import_module(f"webui_extensions.scripts.{name}")


def put_scripts(extensions_dir: Path) -> None:
    """Copy the extension into an extensions folder."""
    shutil.copytree(EXTENSIONS / "scripts", extensions_dir / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
