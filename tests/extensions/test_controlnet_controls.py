"""The ControlNet beside the embedded model controls, and how that is measured (``benchmarks/controlnet_edges.py``)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "models" / "ControlNet" / "starter-canny.safetensors"


@pytest.fixture(scope="module")
def edges() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import controlnet_edges
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return controlnet_edges


@pytest.mark.slow
def test_pictures_follow_their_edges(edges: Any) -> None:
    with_it, without = edges.scores(edges.pairs(FILE, range(1, 4), threads=1))
    assert all(controlled > free + 0.1 for controlled, free in zip(with_it, without, strict=True)), (with_it, without)


def test_the_measure_is_the_share_of_edges_that_have_one_beside_them(edges: Any) -> None:
    import numpy as np

    line = np.zeros((16, 16), bool)
    line[4] = True
    assert edges.agreement(line, line) == 1.0
    assert edges.agreement(np.roll(line, 1, axis=0), line) == 1.0  # a pixel beside it
    assert edges.agreement(np.roll(line, 2, axis=0), line) == 0.0
    half = line.copy()
    half[:, 8:] = False
    recall = 9 / 16  # a pixel beyond the half's end still has it beside it
    assert edges.agreement(half, line) == pytest.approx(2 * recall / (1 + recall))
    assert edges.agreement(np.zeros_like(line), line) == 0.0
