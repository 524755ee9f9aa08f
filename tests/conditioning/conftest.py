from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_model import tiny_checkpoint  # noqa: F401

from webui import device, families
from webui.checkpoints.formats import BUILT_IN
from webui.families.sd15 import StableDiffusion1
from webui.model import Model

sys.path.append(str(Path(__file__).parent.parent / "networks"))  # oracles


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Toy networks are too small to share out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model(tiny_checkpoint: Path) -> Model:  # noqa: F811
    family = {"sd1": StableDiffusion1()}
    return families.load(BUILT_IN.open(tiny_checkpoint), family, device.choose("cpu", "fp32", 1))
