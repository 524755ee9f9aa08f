"""The application of ``plugin_app`` as a fixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from plugin_app import App
from tiny_model import tiny_checkpoint as tiny_checkpoint  # a fixture

from webui.result import Pixels


@pytest.fixture(autouse=True, scope="package")
def threads_as_before() -> Iterator[None]:
    """A runner sets torch's number of threads for its whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def app(tmp_path: Path, tiny_checkpoint: Path) -> Iterator[App]:
    application = App(tmp_path, tiny_checkpoint.parents[1])
    yield application
    application.close()


@pytest.fixture(scope="package")
def plain_pixels(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Pixels:
    """The picture of ``plugin_app.PLAIN`` without any extension."""
    return App(tmp_path_factory.mktemp("plain"), tiny_checkpoint.parents[1]).make().pixels
