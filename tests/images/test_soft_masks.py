from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webui.images.masks import Box, Plan
from webui.images.soft_masks import changed, changed_mask, kernel, smootherstep, weighted_window
from webui.request import SoftInpainting

OPTIONS = SoftInpainting()
RANDOM = np.random.default_rng(1)


def quantile_mean(values: np.ndarray, weights: np.ndarray, low: float, high: float) -> float:
    """The mean of the weighted quantile function between two shares, by sampling it; at least 1 of weight wide."""
    order = np.argsort(values)
    values, ends = values[order], np.cumsum(weights[order])
    start, stop = low * ends[-1], high * ends[-1]
    if stop - start < 1:
        middle = (start + stop) / 2
        start, stop = middle - 0.5, middle + 0.5
        if stop > ends[-1]:
            start, stop = ends[-1] - 1, ends[-1]
    samples = start + (np.arange(20_000) + 0.5) / 20_000 * (stop - start)
    return float(values[np.searchsorted(ends, samples)].mean())


@settings(max_examples=20, deadline=None)
@given(
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    window=st.sampled_from([(0.9, 1.0), (0.25, 0.75), (0.0, 1.0)]),
    seed=st.integers(0, 1000),
)
def test_the_filter_is_a_mean_of_weighted_quantiles(
    size: tuple[int, int], window: tuple[float, float], seed: int
) -> None:
    values, weights = np.random.default_rng(seed).random(size), kernel()
    found = weighted_window(values, *window)
    for row in range(size[0]):
        for column in range(size[1]):
            rows, columns = (
                np.arange(max(at - 2, 0), min(at + 3, length)) for at, length in zip((row, column), size, strict=True)
            )
            near = np.ix_(rows, columns)
            place = np.ix_(rows - row + 2, columns - column + 2)
            expected = quantile_mean(values[near].ravel(), weights[place].ravel(), *window)
            assert found[row, column] == pytest.approx(expected, abs=1e-3)


def test_the_kernel_is_one_in_the_middle_and_falls_with_the_distance() -> None:
    weights = kernel()
    assert weights[2, 2] == 1
    assert np.array_equal(weights, weights.T) and np.array_equal(weights, weights[::-1])
    assert weights[2, 3] > weights[3, 3] > weights[2, 4] > weights[3, 4] > weights[4, 4] > 0


def test_smootherstep_rises_from_0_to_1_about_the_middle() -> None:
    assert smootherstep(np.array([0, 0.5, 1.0])).tolist() == [0, 0.5, 1]


def test_half_of_a_place_that_moved_as_far_as_the_threshold_is_taken() -> None:
    distance, painted = np.full((6, 8), 0.5), np.zeros((6, 8))
    np.testing.assert_allclose(changed(distance, painted, OPTIONS), 0.5, atol=1e-4)
    strict = replace(OPTIONS, difference_threshold=0.25)
    np.testing.assert_allclose(changed(distance, painted, strict), 1 - smootherstep(np.float64(0.2)), atol=1e-4)


@pytest.mark.parametrize("influence", [0.0, 1.0])
def test_nothing_of_a_place_that_did_not_move_is_taken_whatever_the_mask_says(influence: float) -> None:
    painted = RANDOM.random((6, 8))
    painted[0] = 1.0
    options = replace(OPTIONS, mask_influence=influence)
    assert changed(np.zeros((6, 8)), painted, options).max() == 0
    none = replace(options, difference_threshold=0.0)
    assert changed(np.zeros((6, 8)), painted, none).max() == 0
    assert changed(np.ones((6, 8)), painted, none).min() == 1


def test_with_the_masks_influence_its_painted_places_are_taken_sooner() -> None:
    painted = np.concatenate([np.zeros((6, 6)), np.ones((6, 6))], axis=1)
    found = changed(np.full((6, 12), 0.5), painted, replace(OPTIONS, mask_influence=1.0))
    assert found[:, :6].max() < 0.01 and found[:, 6:].min() > 0.99


def test_the_mask_of_a_part_lies_at_its_place_in_the_whole_picture() -> None:
    scene = np.zeros((60, 100, 3), np.uint8)
    part = Plan(
        start=np.zeros((64, 64, 3), np.uint8),
        mask=np.zeros((64, 64), np.uint8),
        original=scene,
        overlay=np.zeros((60, 100), np.uint8),
        box=Box(40, 10, 80, 50),
    )
    found = changed_mask(np.full((8, 8), 9.0), np.ones((8, 8)), OPTIONS, part)
    assert found.shape == (60, 100)
    assert (found[10:50, 40:80] > 250).all()
    found[10:50, 40:80] = 0
    assert not found.any()
