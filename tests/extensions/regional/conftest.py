from pathlib import Path

import pytest
from regional_loaded import tiny
from tiny_model import tiny_checkpoint as tiny_checkpoint

from webui.model import Model


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Model:
    return tiny(tiny_checkpoint)
