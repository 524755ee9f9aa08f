from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "networks"))  # oracles

from controlnet_bench import Bench, tiny
from tiny_model import tiny_checkpoint as tiny_checkpoint


@pytest.fixture
def bench(tiny_checkpoint: Path, tmp_path: Path) -> Bench:
    return Bench(tiny(tiny_checkpoint), tmp_path)
