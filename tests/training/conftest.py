"""Fixtures that tests of training share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import tiny_checkpoint  # noqa: F401 - a fixture
from training_cases import KINDS, Begin, asked, materials, paint

sys.path.append(str(Path(__file__).parent.parent / "networks"))  # oracles


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The machine is shared, and sums of one thread are the same everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small pictures: ``own`` has them, ``general`` has two others for prior preservation."""
    root = tmp_path_factory.mktemp("painted")
    paint(
        root / "own",
        {"red": (220, 30, 30), "green, square": (30, 200, 40), "blue, square": (20, 40, 210), "grey": (90, 90, 90)},
    )
    paint(root / "general", {"a square": (240, 240, 20), "another square": (20, 230, 240)})
    return root


@pytest.fixture
def begin(painted: Path, tiny_checkpoint: Path, tmp_path: Path) -> Begin:  # noqa: F811
    """Makes a task of a kind on the tiny base, for the painted pictures."""

    def make(kind: str, options: dict[str, Any] | None = None, **changes: Any) -> Any:
        request = asked(kind, painted / "own", options=options or {}, **changes)
        return KINDS[kind].begin(
            KINDS[kind].options(**request.options), materials(request, tiny_checkpoint, tmp_path / "cache")
        )

    return make
