from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from scripts_loaded import put_scripts
from tiny_model import tiny_checkpoint, tiny_settings  # noqa: F401

from webui.api.app import build_app
from webui.engine.engine import Engine
from webui.engine.inprocess import InProcess
from webui.engine.runner import Runner


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sdapi")


@pytest.fixture(scope="module")
def engine(folder: Path, tiny_checkpoint: Path) -> Iterator[Engine]:  # noqa: F811
    settings = tiny_settings(folder, tiny_checkpoint)
    settings.styles_file.write_text('name,prompt,negative_prompt\nwrap,"portrait of {prompt}, 4k",grain\n')
    put_scripts(settings.extensions_dir)
    engine = Engine.create(settings, InProcess(Runner.start(settings)))
    engine.start()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def client(engine: Engine) -> Iterator[TestClient]:
    with TestClient(build_app(engine), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def options(engine: Engine) -> Iterator[None]:
    """The settings are afterwards as they were."""
    before = dict(engine.options._changed)
    yield
    engine.options._changed = before
