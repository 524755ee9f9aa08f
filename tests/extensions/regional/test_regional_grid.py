"""Ratios -> how much of each pixel a region covers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from regional_loaded import file

from webui.errors import RequestError

grid = file("grid")


def boxes(ratios: str, mode: str, width: int, height: int) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of each region, which has to be a whole box."""
    found = []
    for mask in grid.masks(grid.parse(ratios, mode), mode, width, height):
        assert set(np.unique(mask)) <= {0, 1}
        rows, columns = np.nonzero(mask)
        found.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        assert mask.sum() == (found[-1][2] - found[-1][0]) * (found[-1][3] - found[-1][1])
    return found


@pytest.mark.parametrize(
    ("ratios", "mode", "expected"),
    [
        ("1,1", "Columns", [(0, 0, 24, 24), (24, 0, 48, 24)]),
        ("1,2,1", "Columns", [(0, 0, 12, 24), (12, 0, 36, 24), (36, 0, 48, 24)]),
        ("0.1, 0.2", "Rows", [(0, 0, 48, 8), (0, 8, 48, 24)]),
        # two rows, 1 and 2 high; the first has columns 2 and 1 wide, the second one column
        ("1,2,1;2,1", "Columns", [(0, 0, 32, 8), (32, 0, 48, 8), (0, 8, 48, 24)]),
        ("1;1", "Columns", [(0, 0, 48, 12), (0, 12, 48, 24)]),
        # Rows: two columns, 1 and 3 wide; the first has rows 1 and 1 high
        ("1;1;1,3;1", "Rows", [(0, 0, 12, 12), (0, 12, 12, 24), (12, 0, 48, 24)]),
    ],
)
def test_places_by_hand(ratios: str, mode: str, expected: list[tuple[int, int, int, int]]) -> None:
    assert boxes(ratios, mode, 48, 24) == expected


@given(
    shares=st.lists(st.floats(0.05, 9), min_size=1, max_size=6),
    mode=st.sampled_from(["Columns", "Rows"]),
    width=st.integers(8, 40),
    height=st.integers(8, 40),
)
def test_regions_cover_every_pixel_once_and_have_their_share(
    shares: list[float], mode: str, width: int, height: int
) -> None:
    masks = grid.masks((grid.Band(1.0, tuple(shares)),), mode, width, height)
    assert np.allclose(masks.sum(axis=0), 1, atol=1e-5)
    assert np.allclose(masks.mean(axis=(1, 2)), np.array(shares) / sum(shares), atol=1e-5)


def test_empty_ratios_divide_evenly_as_the_texts_say() -> None:
    assert grid.bands_for(" ", "Columns", 3, None) == (grid.Band(1.0, (1.0, 1.0, 1.0)),)
    assert grid.bands_for("", "Columns", 3, (1, 2)) == (grid.Band(1.0, (1.0,)), grid.Band(1.0, (1.0, 1.0)))


@pytest.mark.parametrize("ratios", ["1,x", "1,,2", "0,1", "-1,2", "1;;2", "nan,1", "inf,1", "1e999"])
def test_what_is_no_ratio_is_refused(ratios: str) -> None:
    with pytest.raises(RequestError, match="it must be numbers above 0"):
        grid.parse(ratios, "Columns")


@pytest.mark.parametrize(
    ("ratios", "count", "bands", "told"),
    [
        ("1,1", 3, None, r"make 2 regions and the prompt has 3"),
        ("1,2,1;2,1", 2, None, r"make 2 \+ 1 regions and the prompt has 2"),
        ("1,2,1;2,1", 3, (1, 2), r"make 2 \+ 1 regions and the prompt has 1 \+ 2"),
    ],
)
def test_ratios_that_do_not_fit_the_texts_are_refused(
    ratios: str, count: int, bands: tuple[int, ...] | None, told: str
) -> None:
    with pytest.raises(RequestError, match=told):
        grid.bands_for(ratios, "Columns", count, bands)
