"""The image grid."""

from __future__ import annotations

import numpy as np
import pytest

from webui.images.grid import grid


def tile(level: int, height: int = 2, width: int = 3) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (4, 2, 2), (6, 2, 3), (7, 3, 3), (12, 3, 4)]
)
def test_rows_are_the_rounded_root(count: int, rows: int, columns: int) -> None:
    made = grid([tile(level) for level in range(1, count + 1)])
    assert made.shape == (rows * 2, columns * 3, 3)
    cells = made[::2, ::3, 0].ravel().tolist()
    assert cells == [*range(1, count + 1), *[0] * (rows * columns - count)]


def test_rows_can_be_given_and_sizes_may_differ() -> None:
    made = grid([tile(9), tile(8, 1, 1)], rows=2)
    assert made.shape == (4, 3, 3)
    assert made[2:, :, 0].tolist() == [[8, 0, 0], [0, 0, 0]]
