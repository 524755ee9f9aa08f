"""How much each text counts at a place: base * ratio + region * (1 - ratio), as Regional Prompter's README has it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from regional_loaded import file

from webui.errors import RequestError

shares, per_region = file("shares").shares, file("shares").per_region
LEFT, RIGHT = np.array([[1, 1, 0, 0]], np.float32), np.array([[0, 0, 1, 1]], np.float32)
WIDE = np.array([[1, 1, 1, 0]], np.float32)


def found(masks: list[np.ndarray], weights: list[float], base: list[float] | None) -> list[list[float]]:
    result = shares(np.stack(masks), np.array(weights), None if base is None else np.array(base))
    return [[round(float(value), 6) for value in row[0]] for row in result]


def test_regions_side_by_side() -> None:
    assert found([LEFT, RIGHT], [1, 1], None) == [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]


def test_the_base_takes_its_ratio_of_each_region() -> None:
    assert found([LEFT, RIGHT], [1, 1], [0.2, 0.5]) == [[0.2, 0.2, 0.5, 0.5], [0.8, 0.8, 0, 0], [0, 0, 0.5, 0.5]]


def test_where_regions_overlap_their_weights_decide() -> None:
    assert found([WIDE, RIGHT], [1, 3], None) == [[0, 0, 0, 0], [1, 1, 0.25, 0], [0, 0, 0.75, 1]]


def test_where_no_region_is_the_base_holds_alone_or_else_region_1() -> None:
    nowhere = np.array([[0, 0, 0, 1]], np.float32)
    assert found([LEFT, nowhere], [1, 1], [0, 0]) == [[0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]]
    assert found([LEFT, nowhere], [1, 1], None) == [[0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    assert found([LEFT, RIGHT], [0, 1], [0.2, 0.2])[0] == [1, 1, 0.2, 0.2]


@given(st.data())
def test_they_add_up_to_one(data: st.DataObject) -> None:
    numbers = st.floats(0, 1, width=32)
    masks = [np.array([data.draw(st.lists(numbers, min_size=4, max_size=4))], np.float32) for _ in range(3)]
    weights, base = (data.draw(st.lists(numbers, min_size=3, max_size=3)) for _ in range(2))
    result = shares(np.stack(masks), np.array(weights), data.draw(st.sampled_from([None, np.array(base)])))
    assert np.allclose(result.sum(axis=0), 1, atol=1e-5) and (result >= -1e-6).all()


def test_one_number_is_for_every_region() -> None:
    assert per_region("0.2", "Base ratio", 3, 1.0).tolist() == [0.2, 0.2, 0.2]
    assert per_region("0.2, 0,1", "Base ratio", 3, 1.0).tolist() == [0.2, 0.0, 1.0]


@pytest.mark.parametrize("text", ["", "x", "0.1,0.2", "1.5", "-1", "nan", "0.1,0.2,0.3,0.4"])
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="Base ratio is"):
        per_region(text, "Base ratio", 3, 1.0)
