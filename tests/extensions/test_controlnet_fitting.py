from __future__ import annotations

import cv2
import numpy as np
import pytest
from controlnet_parts import part

fitting = part("fitting")
Mode = fitting.ResizeMode


def lines() -> np.ndarray:
    """A ring and two strokes, one pixel wide, white on black."""
    pixels = np.zeros((96, 96, 3), np.uint8)
    cv2.circle(pixels, (48, 48), 30, (255, 255, 255), 1)
    cv2.line(pixels, (5, 5), (90, 20), (255, 255, 255), 1)
    pixels[90, 10:80] = 255
    return pixels


def smooth(height: int = 64, width: int = 96) -> np.ndarray:
    small = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("size", [(96, 96), (128, 64), (40, 200), (8, 8)])
@pytest.mark.parametrize("pixels", [lines(), smooth()], ids=["lines", "smooth"])
def test_it_has_the_size_asked_for(pixels: np.ndarray, size: tuple[int, int], mode: object) -> None:
    fitted = fitting.fitted(pixels, *size, mode)
    assert fitted.shape == (size[1], size[0], 3)
    assert fitted.dtype == np.uint8


@pytest.mark.parametrize("mode", list(Mode))
def test_what_fits_is_not_touched(mode: object) -> None:
    assert np.array_equal(fitting.fitted(smooth(), 96, 64, mode), smooth())


@pytest.mark.parametrize("side", [48, 144, 192, 250])
def test_lines_stay_lines_of_one_pixel(side: int) -> None:
    fitted = fitting.fitted(lines(), side, side, Mode.JUST_RESIZE)
    assert set(np.unique(fitted)) == {0, 255}
    square = np.ones((3, 3), np.uint8)
    assert not cv2.erode(fitted, square).any()
    ideal = cv2.resize(lines(), (side, side), interpolation=cv2.INTER_NEAREST)[..., 0] > 0
    near = cv2.dilate(ideal.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    assert near[fitted[..., 0] > 0].all()
    if side > 96:  # none is lost; lines closer than two pixels may become one where they shrink
        found = cv2.dilate(fitted[..., 0], np.ones((7, 7), np.uint8)) > 0
        assert found[ideal].all()


def test_two_levels_stay_two_levels() -> None:
    block = np.zeros((64, 64, 3), np.uint8)
    block[16:48, 16:48] = 255
    fitted = fitting.fitted(block, 100, 100, Mode.JUST_RESIZE)
    assert set(np.unique(fitted)) == {0, 255}
    assert abs(int((fitted[..., 0] > 0).sum()) - 2500) < 120


def test_a_map_of_kinds_gets_no_new_colours() -> None:
    pixels = np.random.default_rng(2).integers(0, 7, (10, 10), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    pixels = np.stack([pixels * 30, pixels * 20, 255 - pixels], axis=2).astype(np.uint8)
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3)}
    fitted = fitting.fitted(pixels, 130, 70, Mode.CROP)
    assert {tuple(colour) for colour in fitted.reshape(-1, 3)} <= colours


def test_crop_cuts_off_the_sides_and_fill_adds_the_colour_of_the_border() -> None:
    pixels = smooth(64, 128)
    cropped = fitting.fitted(pixels, 64, 64, Mode.CROP)
    assert np.array_equal(cropped, pixels[:, 32:96])
    filled = fitting.fitted(pixels, 128, 128, Mode.FILL)
    assert np.array_equal(filled[32:96], pixels)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (filled[:32] == np.median(border, axis=0).astype(np.uint8)).all()


@pytest.mark.parametrize(("mode", "expected"), [(Mode.JUST_RESIZE, 128), (Mode.CROP, 128), (Mode.FILL, 64)])
def test_pixel_perfect_is_the_size_at_which_nothing_is_scaled(mode: object, expected: int) -> None:
    """A picture twice as wide as high, for a square of 128."""
    assert fitting.pixel_perfect(smooth(32, 64), 128, 128, mode) == expected
    seen = fitting.at_resolution(smooth(32, 64), expected)
    assert min(seen.shape[:2]) == expected
    if mode is not Mode.JUST_RESIZE:
        assert fitting.fitted(seen, 128, 128, mode).shape == (128, 128, 3)


def test_thinning_leaves_the_middle_of_a_bar() -> None:
    bar = np.zeros((40, 60), np.uint8)
    bar[18:23, 5:55] = 255
    thin = fitting.thinned(bar)
    assert (thin[:, 12:48].sum(axis=0) == 255).all()
    assert thin[20, 12:48].all()
