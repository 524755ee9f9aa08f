from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_model import tiny_checkpoint, tiny_settings  # noqa: F401

from webui.engine.engine import Engine
from webui.engine.inprocess import InProcess
from webui.engine.runner import Runner
from webui.plugins.manager import EXTENSION_PACKAGE, Plugins
from webui.settings import Settings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Toy networks are too small to share out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def extensions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An extensions folder with this extension alone."""
    folder = tmp_path_factory.mktemp("extensions")
    (folder / "xray").symlink_to(ROOT / "extensions" / "xray", target_is_directory=True)
    return folder


@pytest.fixture(scope="session")
def xray(extensions: Path) -> SimpleNamespace:
    """The files of the extension by name, as the program imports them."""
    plugins = Plugins.load(extensions)
    assert not plugins.problems
    names = sorted(path.stem for path in (extensions / "xray").glob("*.py") if path.stem != "__init__")
    return SimpleNamespace(**{name: importlib.import_module(f"{EXTENSION_PACKAGE}.xray.{name}") for name in names})


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path, extensions: Path) -> Settings:  # noqa: F811
    return replace(tiny_settings(tmp_path, tiny_checkpoint), extensions_dir=extensions)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = Engine.create(settings, InProcess(Runner.start(settings)))
    engine.start()
    yield engine
    engine.close()
