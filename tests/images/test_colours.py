from __future__ import annotations

import numpy as np
import pytest

from webui.images.colours import matched_levels, with_colours_of, with_luminosity_of

RANDOM = np.random.default_rng(0)
SCENE = RANDOM.integers(0, 256, (24, 32, 3), dtype=np.uint8)
LUMINOSITY = np.array([0.299, 0.587, 0.114])


def set_luminosity(colour: np.ndarray, luminosity: float) -> np.ndarray:
    """W3C Compositing and Blending Level 1, SetLum and ClipColor, for one colour."""
    colour = colour + (luminosity - LUMINOSITY @ colour)
    level, low, high = LUMINOSITY @ colour, colour.min(), colour.max()
    if low < 0:
        colour = level + (colour - level) * level / (level - low)
    if high > 1:
        colour = level + (colour - level) * (1 - level) / (high - level)
    return colour


def test_the_luminosity_is_set_as_the_standard_says() -> None:
    other = RANDOM.integers(0, 256, SCENE.shape, dtype=np.uint8)
    found = with_luminosity_of(SCENE, other)
    expected = [
        set_luminosity(colour / 255, LUMINOSITY @ (light / 255))
        for colour, light in zip(SCENE.reshape(-1, 3), other.reshape(-1, 3), strict=True)
    ]
    assert np.abs(found.reshape(-1, 3) - 255 * np.clip(expected, 0, 1)).max() <= 1
    assert np.abs(found @ LUMINOSITY - other @ LUMINOSITY).max() <= 1.1, "but for levels that are cut off"


def test_matched_levels_have_the_ranks_of_their_own_and_the_values_of_the_other() -> None:
    levels, other = RANDOM.permutation(256).astype(np.uint8).reshape(16, 16), np.repeat(np.uint8([3, 200]), 128)
    found = matched_levels(levels, other.reshape(16, 16))
    assert found[levels < 128].max() == 3
    assert found[levels == 255] == 200
    rising = found.ravel()[np.argsort(levels.ravel())]
    assert (np.diff(rising.astype(int)) >= 0).all()
    assert np.array_equal(matched_levels(levels, levels), levels)


def test_a_red_picture_takes_the_hue_of_a_green_one_and_keeps_its_light() -> None:
    grey = RANDOM.integers(60, 120, (16, 16, 1), dtype=np.uint8)
    red, green = grey + np.uint8([80, 0, 0]), grey[:8] + np.uint8([0, 80, 0])
    found = with_colours_of(red, green)
    assert found.shape == red.shape and found.dtype == np.uint8
    assert (found[..., 1].astype(int) > found[..., 0]).all()
    assert np.abs(found @ LUMINOSITY - red @ LUMINOSITY).mean() < 1.5


@pytest.mark.parametrize("level", [0, 128, 255])
def test_one_grey_stays_what_it_is(level: int) -> None:
    plain = np.full((8, 8, 3), level, np.uint8)
    assert np.abs(with_colours_of(plain, plain).astype(int) - plain).max() <= 1
