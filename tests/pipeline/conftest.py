from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_model import tiny_checkpoint  # noqa: F401

sys.path.append(str(Path(__file__).parent.parent / "networks"))  # oracles


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Toy networks are too small to share out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
