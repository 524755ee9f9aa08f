"""The resize modes by their geometry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from webui.images.resize import resize
from webui.request import ResizeMode

SCENE = np.random.default_rng(2).integers(0, 256, (96, 160, 3), dtype=np.uint8)
sides = st.integers(1, 90)


def lanczos(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


@given(sides, sides, sides, sides, st.sampled_from([*ResizeMode][:3]), st.booleans())
def test_the_size_is_the_one_asked_for(
    width: int, height: int, to_width: int, to_height: int, mode: ResizeMode, is_mask: bool
) -> None:
    levels = np.full((height, width) if is_mask else (height, width, 3), 77, np.uint8)
    made = resize(levels, to_width, to_height, mode)
    assert made.shape[:2] == (to_height, to_width) and made.ndim == levels.ndim
    if mode is not ResizeMode.FILL:
        assert (made == 77).all()  # no border comes in


def test_just_resize_distorts() -> None:
    assert np.array_equal(resize(SCENE, 128, 128), lanczos(SCENE, 128, 128))


def test_crop_cuts_off_both_sides() -> None:
    scaled = lanczos(SCENE, 213, 128)
    assert np.array_equal(resize(SCENE, 128, 128, ResizeMode.CROP), scaled[:, 42:170])


def test_fill_continues_the_outermost_rows() -> None:
    made = resize(SCENE, 128, 128, ResizeMode.FILL)
    scaled = lanczos(SCENE, 128, 76)
    assert np.array_equal(made[26:102], scaled)
    for border, last, before in ((made[:26], scaled[0], scaled[1]), (made[102:], scaled[-1], scaled[-2])):
        assert (border == border[0]).all()
        extrapolated = np.clip(1.125 * last - 0.125 * before, 0, 255)
        assert np.abs(border[0] - extrapolated).max() <= 1


def test_fill_continues_the_outermost_columns() -> None:
    turned = np.rot90(SCENE).copy()
    made = resize(turned, 128, 128, ResizeMode.FILL)
    scaled = lanczos(turned, 76, 128)
    assert np.array_equal(made[:, 26:102], scaled)
    for border, last, before in (
        (made[:, :26], scaled[:, 0], scaled[:, 1]),
        (made[:, 102:], scaled[:, -1], scaled[:, -2]),
    ):
        assert (border == border[:, :1]).all()
        extrapolated = np.clip(1.125 * last - 0.125 * before, 0, 255)
        assert np.abs(border[:, 0] - extrapolated).max() <= 1


@pytest.mark.parametrize("mode", ResizeMode)
def test_the_same_size_changes_nothing(mode: ResizeMode) -> None:
    assert np.array_equal(resize(SCENE, 160, 96, mode), SCENE)


def test_latent_mode_leaves_pictures_and_stretches_masks() -> None:
    assert resize(SCENE, 64, 64, ResizeMode.LATENT).shape == SCENE.shape
    assert resize(SCENE[..., 0], 64, 64, ResizeMode.LATENT).shape == (64, 64)
