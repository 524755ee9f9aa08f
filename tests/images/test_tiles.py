"""Cutting and joining: nothing is lost, and what is laid over fades in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.images.tiles import tiles_of


@given(st.integers(1, 150), st.integers(1, 150), st.integers(16, 64), st.integers(0, 8), st.integers(1, 3))
def test_cut_and_joined_is_the_picture(width: int, height: int, side: int, overlap: int, factor: int) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    tiles = tiles_of(width, height, side, side, overlap)
    small = tiles.cut(pixels)
    assert {tile.shape for tile in small} == {(min(side, height), min(side, width), 3)}
    large = tiles.enlarged(factor).join([tile.repeat(factor, 0).repeat(factor, 1) for tile in small])
    assert np.array_equal(large, pixels.repeat(factor, 0).repeat(factor, 1))


@pytest.mark.parametrize(
    ("side", "lefts"),
    [(512, (0, 160, 320)), (192, (0,)), (100, (0,)), (193, (0, 1)), (376, (0, 184)), (377, (0, 92, 185))],
)
def test_tiles_lie_as_in_the_program_whose_pictures_are_kept(side: int, lefts: tuple[int, ...]) -> None:
    """ceil((side - 8) / (192 - 8)) tiles, spread evenly, their places rounded down."""
    assert tiles_of(side, 10, 192, 192, 8).lefts == lefts


def test_a_tile_fades_in_over_its_overlap() -> None:
    tiles = tiles_of(56, 32, 32, 32, 8)
    black, white = np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)
    row = tiles.join([black, white])[5, :, 0]
    assert tiles.lefts == (0, 24)
    assert row.tolist() == [0] * 24 + [int(k * 255 / 8) for k in range(8)] + [255] * 24
    tall = tiles_of(32, 56, 32, 32, 8).join([black, white])
    assert tall[:, 5, 0].tolist() == row.tolist()
