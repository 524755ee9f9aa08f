from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_model import tiny_checkpoint, tiny_settings  # noqa: F401

from webui.engine.engine import Engine
from webui.engine.inprocess import InProcess
from webui.engine.runner import Runner
from webui.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path) -> Settings:  # noqa: F811
    return tiny_settings(tmp_path, tiny_checkpoint)


@pytest.fixture
def runner(settings: Settings) -> Runner:
    return Runner.start(settings)


@pytest.fixture
def engine(settings: Settings, runner: Runner) -> Iterator[Engine]:
    engine = Engine.create(settings, InProcess(runner))
    engine.start()
    yield engine
    engine.close()
