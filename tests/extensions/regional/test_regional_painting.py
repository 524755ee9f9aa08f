"""Painted pictures -> regions, by the colours that Regional Prompter's README gives."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from regional_loaded import file

from webui.errors import RequestError

painting = file("painting")


def picture(*colours: tuple[float, float, float], width: int = 8) -> np.ndarray:
    """One column of 8 x ``width`` for each colour (red, green, blue), 0 to 1."""
    columns = [np.full((8, width, 3), np.array(colour) * 255) for colour in colours]
    return np.concatenate(columns, axis=1).round().astype(np.uint8)


def test_the_first_hues_are_those_of_the_readme() -> None:
    assert [painting.hue(region) for region in range(9)] == [0, 180, 90, 270, 45, 135, 225, 315, 22.5]


def test_masks_of_regional_prompter_are_read() -> None:
    """HSV(hue, 50 %, 50 %)."""
    colours = [colorsys.hsv_to_rgb(painting.hue(region) / 360, 0.5, 0.5) for region in range(12)]
    assert painting.painted(picture(*colours), 12)[0, 4::8].tolist() == list(range(12))


@pytest.mark.parametrize(
    ("paint", "regions", "expected"),
    [
        ((1, 0, 0), 2, 0),
        ((1, 0.2, 0.3), 2, 0),
        ((0, 0, 1), 2, 1),
        ((0, 1, 0), 2, 1),
        ((0, 1, 0), 3, 2),
        ((0, 0, 1), 4, 3),
        ((1, 1, 1), 3, -1),
        ((0, 0, 0), 3, -1),
        ((0.5, 0.5, 0.5), 3, -1),
        ((0.1, 0, 0), 3, -1),
    ],
)
def test_any_paint_is_the_nearest_region_and_grey_is_none(
    paint: tuple[float, float, float], regions: int, expected: int
) -> None:
    assert set(np.unique(painting.painted(picture(paint), regions))) == {expected}


def test_hues_agree_with_colorsys() -> None:
    """All colours of a coarse cube, against the hue that the standard library gives them."""
    levels = np.linspace(0, 1, 6)
    for colour in [(r, g, b) for r in levels for g in levels for b in levels]:
        hue, saturation, value = colorsys.rgb_to_hsv(*(round(c * 255) / 255 for c in colour))
        found = int(painting.painted(picture(colour), 8)[0, 0])
        if saturation < 0.25 or value < 0.2:
            assert found == -1
            continue
        distances = [min(abs(hue * 360 - painting.hue(n)), 360 - abs(hue * 360 - painting.hue(n))) for n in range(8)]
        assert distances[found] == pytest.approx(min(distances), abs=1e-6)


def test_masks_have_the_size_of_the_picture_that_is_made() -> None:
    masks = painting.masks(picture((1, 0, 0), (1, 1, 1), (0, 1, 1)), 2, 48, 16)
    assert masks.shape == (2, 16, 48)
    assert masks[0, :, :16].all() and masks[1, :, 32:].all() and masks.sum() == 2 * 16 * 16


def test_a_region_without_paint_is_named_with_the_colours() -> None:
    with pytest.raises(RequestError, match=r"region 2 of 3; their colours are 1 red, 2 cyan, 3 lime"):
        painting.masks(picture((1, 0, 0), (0.5, 1, 0)), 3, 48, 16)
