from __future__ import annotations

import cv2
import numpy as np
import pytest
from controlnet_parts import part, plugins

from webui.errors import RequestError
from webui.preprocessors import Preprocessor

made = part("preprocessors")
ALL = made.preprocessors()


def noise(height: int = 90, width: int = 130) -> np.ndarray:
    small = np.random.default_rng(3).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def drawing() -> np.ndarray:
    """A black line, three pixels wide, on white."""
    pixels = np.full((96, 96, 3), 255, np.uint8)
    pixels[:, 47:50] = 0
    return pixels


def test_they_are_registered_beside_canny() -> None:
    registered = plugins().preprocessors
    assert not [sentence for sentence in plugins().problems if "controlnet" in sentence]
    assert {one.name for one in ALL} <= set(registered)
    assert [slider.default for slider in registered["canny"].sliders] == [100, 200]


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_every_one_is_a_pure_function_of_a_picture(one: Preprocessor) -> None:
    pixels = noise()
    pixels.setflags(write=False)
    for options in ({}, {s.key: s.low for s in one.sliders}, {s.key: s.high for s in one.sliders}):
        result = one.run(pixels, options)
        assert result.dtype == np.uint8 and result.ndim == 3 and result.shape[2] == 3
        assert np.array_equal(result, one.run(pixels.copy(), options))
        if one.name != "tile_resample":
            assert result.shape == pixels.shape


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_options_that_mean_nothing_are_refused(one: Preprocessor) -> None:
    with pytest.raises(RequestError, match="option of"):
        one.run(noise(), {"nothing": 1})
    for slider in one.sliders:
        for value in (slider.high + 1, "much", True):
            with pytest.raises(RequestError, match=slider.key):
                one.run(noise(), {slider.key: value})


def test_no_two_answer_to_one_name() -> None:
    names = [name for one in ALL for name in (one.name, *one.aliases)]
    assert len(set(names)) == len(names)


def test_invert_undoes_itself() -> None:
    assert np.array_equal(made.invert(made.invert(noise())), noise())
    assert (made.invert(drawing())[:, 48] == 255).all()


@pytest.mark.parametrize("lines", [made.lineart_standard, lambda pixels: made.scribble_xdog(pixels, 32)])
def test_a_black_line_becomes_a_white_one(lines: object) -> None:
    result = lines(drawing())  # type: ignore[operator]
    assert (result[:, 48] > 120).all()
    assert not result[:, :20].any() and not result[:, 76:].any()
    assert not lines(np.full((64, 64, 3), 200, np.uint8)).any()  # type: ignore[operator]


def test_lineart_measures_by_the_median_line() -> None:
    """intensity / max(16, median of those above 8) * 127, of the least darkened channel."""
    pixels = noise().astype(np.float32)
    darker = (cv2.GaussianBlur(pixels, (0, 0), 6.0) - pixels).min(axis=2).clip(0, 255)
    expected = (darker / max(16, np.median(darker[darker > 8])) * 127).clip(0, 255).astype(np.uint8)
    assert np.abs(made.lineart_standard(noise())[:, :, 0].astype(int) - expected).max() <= 1


def test_threshold_asks_the_darkest_channel() -> None:
    pixels = np.array([[[200, 200, 127], [128, 128, 128]]], np.uint8)
    assert made.threshold(pixels, 127).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_tile_resample_takes_means() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    halved = made.tile_resample(pixels, 2)
    means = pixels.reshape(20, 2, 30, 2, 3).mean(axis=(1, 3))
    assert halved.shape == (20, 30, 3)
    assert np.abs(halved - means).max() <= 0.5
    assert made.tile_resample(pixels, 1.09) is pixels


def test_the_colour_grid_has_whole_cells() -> None:
    grid = made.colour_grid(noise(192, 256))
    cells = grid.reshape(3, 64, 4, 64, 3)
    assert (cells == cells[:, :1, :, :1]).all()
    assert len(np.unique(grid.reshape(-1, 3), axis=0)) > 6


def test_a_palette_has_as_many_colours_as_asked_for() -> None:
    assert len(np.unique(made.colour_palette(noise(), 5).reshape(-1, 3), axis=0)) == 5


def test_shuffle_keeps_the_colours_and_depends_on_its_seed() -> None:
    pixels = noise(300, 420)
    first, again, other = made.shuffle(pixels, 1), made.shuffle(pixels, 1), made.shuffle(pixels, 2)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.min() >= pixels.min() and first.max() <= pixels.max()
    assert not np.array_equal(first, pixels)


def test_depth_by_light_spans_all_levels_and_puts_light_in_front() -> None:
    pixels = np.repeat(np.linspace(60, 180, 96, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    depth = made.depth_luminance(pixels, 2)[..., 0].astype(int)
    assert (depth.min(), depth.max()) == (0, 255)
    assert (np.diff(depth, axis=1) >= 0).all()


def test_recolouring_takes_lightness_or_the_brightest_channel() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert np.array_equal(made.recolor_intensity(grey, 1.0), grey)
    lightness = made.recolor_luminance(grey, 1.0)[0, :, 0].astype(float) * 100 / 255
    share = np.arange(256) / 255
    linear = np.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92)
    cie = np.where(linear > 0.008856, 116 * np.cbrt(linear) - 16, 903.3 * linear)
    assert np.abs(lightness - cie).max() < 0.6
    assert made.recolor_intensity(grey, 2.0)[0, 128, 0] == 64


def test_blurring_is_a_gaussian() -> None:
    pixels = np.zeros((81, 81, 3), np.uint8)
    pixels[:, 40] = 255
    row = made.blur_gaussian(pixels, 4.0)[40, :, 0].astype(float)
    expected = 255 * np.exp(-((np.arange(81) - 40) ** 2) / 32) / np.sqrt(32 * np.pi)
    assert np.abs(row - expected).max() < 1
