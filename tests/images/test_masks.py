"""Masks: blur against OpenCV's numbers, the box against its definition, pasting back against the original's bytes."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from webui.errors import RequestError
from webui.images import masks
from webui.images.masks import Plan
from webui.request import InpaintArea, Mask, MaskedContent, MaskMode, Part, ResizeMode, Size, SoftInpainting

RNG = np.random.default_rng(3)
SCENE = RNG.integers(0, 256, (96, 128, 3), dtype=np.uint8)
OPTIONS = Mask(image="0" * 64)
SQUARE = np.zeros((96, 128), np.uint8)
SQUARE[30:50, 70:110] = 255


def png(levels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "PNG")
    return stream.getvalue()


def test_light_is_painted() -> None:
    grey = np.array([[0, 100, 255]], np.uint8)
    assert masks.read_mask(png(grey)).tolist() == [[0, 100, 255]]
    assert masks.read_mask(png(np.repeat(grey[..., None], 3, axis=2))).tolist() == [[0, 100, 255]]


def test_of_a_drawing_on_an_empty_sheet_the_opaque_part_is_painted() -> None:
    drawing = np.zeros((1, 4, 4), np.uint8)
    drawing[0, :, 3] = (0, 128, 129, 255)
    assert masks.read_mask(png(drawing)).tolist() == [[0, 0, 255, 255]]
    drawing[..., :3], drawing[..., 3] = 200, 255
    assert masks.read_mask(png(drawing)).tolist() == [[200, 200, 200, 200]]


# cv2.GaussianBlur(cv2.GaussianBlur(m, (k, 1), b), (1, k), b) with k = 2 * int(2.5 * b + 0.5) + 1, OpenCV 5.0.
STEP = {
    4: [42, 44, 55, 70, 91, 115, 140, 164, 185, 200, 211, 213],
    2: [0, 2, 9, 26, 57, 102, 153, 198, 229, 246, 253, 255],
}
DIGESTS = {1: "267c74b7a1f22ea0", 4: "f792f30ff3a2a16c", 16: "79f6b62d32858b60", 64: "e1099420a95e1924"}


@pytest.mark.parametrize("sigma", STEP)
def test_blur_of_a_step_is_that_of_opencv(sigma: int) -> None:
    step = np.array([[0] * 6 + [255] * 6], np.uint8)
    assert masks.blur(step, sigma).tolist() == [STEP[sigma]]
    assert masks.blur(step.T, sigma).T.tolist() == [STEP[sigma]]


@pytest.mark.parametrize("sigma", DIGESTS)
def test_blur_of_a_picture_is_that_of_opencv(sigma: int) -> None:
    y, x = np.mgrid[:64, :80]
    mask = ((x * 7 + y * 13) % 256).astype(np.uint8)
    mask[20:40, 30:60] = 255
    mask[:10] = 0
    assert hashlib.sha256(masks.blur(mask, sigma).tobytes()).hexdigest()[:16] == DIGESTS[sigma]


@given(st.integers(0, 64), st.integers(0, 255))
def test_blur_keeps_a_constant(sigma: int, level: int) -> None:
    assert (masks.blur(np.full((5, 9), level, np.uint8), sigma) == level).all()


def test_invert_and_overlay() -> None:
    mask = np.array([[0, 1, 127, 128, 255]], np.uint8)
    assert masks.invert(mask).tolist() == [[255, 254, 128, 127, 0]]
    assert masks.overlay_mask(mask).tolist() == [[0, 2, 254, 255, 255]]


def test_the_latent_mask_is_all_or_nothing() -> None:
    made = masks.latent_mask(SQUARE, 16, 12)
    assert made.shape == (12, 16) and made.dtype == np.float32
    assert set(np.unique(made)) == {0.0, 1.0}
    assert made[5, 11] == 1.0 and made[0, 0] == 0.0


def test_the_box_around_a_mask() -> None:
    assert masks.crop_box(SQUARE, 0, Size(width=64, height=64)) == (70, 20, 110, 60)  # 40x20 grown to 40x40
    assert masks.crop_box(SQUARE, 10, Size(width=128, height=64)) == (48, 20, 128, 60)  # 60x40 to 80x40, shifted


@given(st.data(), st.integers(0, 64), st.integers(1, 8), st.integers(1, 8))
def test_the_box_holds_the_mask_and_has_the_proportions(
    data: st.DataObject, padding: int, wide: int, high: int
) -> None:
    height, width = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 200))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 1
    box = masks.crop_box(mask, padding, Size(width=64 * wide, height=64 * high))
    assert 0 <= box.left <= max(left - padding, 0) and min(right + padding, width) <= box.right <= width
    assert 0 <= box.top <= max(top - padding, 0) and min(bottom + padding, height) <= box.bottom <= height
    across, down, ratio = box.right - box.left, box.bottom - box.top, wide / high
    if across < width and down < height:
        assert abs(across - down * ratio) < max(1, ratio) or abs(down - across / ratio) < max(1, 1 / ratio)


def test_fill_takes_the_colours_around() -> None:
    halves = np.zeros((96, 128, 3), np.uint8)
    halves[:, :64], halves[:, 64:] = (200, 0, 0), (0, 0, 200)
    mask = np.zeros((96, 128), np.uint8)
    mask[40:56, 20:108] = 255
    made = masks.fill(halves, mask)
    assert np.array_equal(made[mask == 0], halves[mask == 0])
    assert made[48, 30, 0] > 150 > made[48, 30, 2]
    assert made[48, 98, 2] > 150 > made[48, 98, 0]


def planned(
    options: Mask = OPTIONS,
    mask: np.ndarray = SQUARE,
    mode: ResizeMode = ResizeMode.JUST_RESIZE,
    latent: np.ndarray | None = None,
    **changes: object,
) -> Plan:
    made = masks.plan(SCENE, mask, replace(options, **changes), Size(width=64, height=64), mode, latent=latent)
    assert made is not None
    return made


@pytest.mark.parametrize("area", InpaintArea)
@pytest.mark.parametrize("mode", ResizeMode)
def test_a_plan_has_the_size_asked_for(area: InpaintArea, mode: ResizeMode) -> None:
    made = planned(area=area, mode=mode)
    assert made.mask.shape == (64, 64)
    result = (96, 128) if area is InpaintArea.ONLY_MASKED else (64, 64)
    assert made.original.shape == (*result, 3) and made.overlay.shape == result
    assert made.start.shape[:2] == (64, 64) or mode is ResizeMode.LATENT
    assert (made.box is None) == (area is InpaintArea.WHOLE)


@pytest.mark.parametrize("content", MaskedContent)
def test_what_stands_under_the_mask(content: MaskedContent) -> None:
    kept, made = planned().start, planned(content=content)
    changed = (made.start != kept).any()
    assert changed == (content is not MaskedContent.ORIGINAL)


def test_not_masked_paints_the_other_side() -> None:
    made, other = planned(blur=0), planned(replace(OPTIONS, mode=MaskMode.NOT_MASKED), blur=0)
    assert np.array_equal(other.mask, 255 - made.mask)


def test_only_an_empty_mask_has_no_part_to_enlarge() -> None:
    empty = np.zeros_like(SQUARE)
    size = Size(width=64, height=64)
    assert masks.plan(SCENE, empty, replace(OPTIONS, area=InpaintArea.ONLY_MASKED), size, ResizeMode.CROP) is None
    whole = masks.plan(SCENE, empty, OPTIONS, size, ResizeMode.CROP)
    assert whole is not None
    painted = np.zeros((64, 64, 3), np.uint8)
    assert np.array_equal(masks.paste_over(painted, whole), whole.original)


@given(st.integers(0, 16), st.sampled_from([*InpaintArea]), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_outside_the_mask_the_bytes_are_the_originals(blur: int, area: InpaintArea, padding: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((96, 128), np.uint8)
    top, left = rng.integers(0, 90), rng.integers(0, 120)
    mask[top : top + rng.integers(1, 60), left : left + rng.integers(1, 60)] = 255
    made = planned(mask=mask, blur=blur, area=area, padding=padding)
    painted = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    result = masks.paste_over(painted, made)
    kept = made.overlay == 0
    assert np.array_equal(result[kept], made.original[kept])
    if area is InpaintArea.WHOLE:
        inside = made.overlay == 255
        assert np.array_equal(result[inside], painted[inside])


def test_between_the_edges_the_two_are_mixed() -> None:
    made = planned(blur=8)
    result = masks.paste_over(np.full((64, 64, 3), 255, np.uint8), made)
    soft = (made.overlay > 0) & (made.overlay < 255)
    expected = made.original + (255.0 - made.original) * made.overlay[..., None] / 255
    assert np.abs(result[soft] - expected[soft]).max() <= 3


def test_blur_along_one_side_only() -> None:
    levels = np.zeros((9, 9), np.uint8)
    levels[4, 4] = 255
    across, down = masks.blur(levels, 2, 0), masks.blur(levels, 0, 2)
    assert np.array_equal(across.T, down)
    assert np.flatnonzero(across.any(axis=1)).tolist() == [4] and across[4, 2] > 0
    assert np.array_equal(masks.blur(levels, 0, 0), levels)
    made, other = planned(blur=0, blur_y=6), planned(blur=6, blur_y=0)
    assert not np.array_equal(made.mask, other.mask)


def test_without_rounding_an_alpha_is_its_own_mask_and_the_latents_mask_has_greys() -> None:
    drawing = np.zeros((1, 4, 4), np.uint8)
    drawing[0, :, 3] = 0, 128, 129, 255
    assert masks.read_mask(png(drawing), rounded=False).tolist() == [[0, 128, 129, 255]]
    soft = masks.latent_mask(np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1)), 8, 8, rounded=False)
    assert soft.dtype == np.float32 and ((soft > 0.1) & (soft < 0.9)).any()
    assert masks.is_rounded(OPTIONS)
    assert not masks.is_rounded(replace(OPTIONS, soft=SoftInpainting()))
    assert not masks.is_rounded(replace(OPTIONS, round=False))


def test_a_part_is_seen_as_it_is_and_nothing_beside_it_is_painted() -> None:
    part = Part(left=64, top=32, width=64, height=64)
    made = planned(area=InpaintArea.ONLY_MASKED, part=part, blur=2)
    assert made.box == (64, 32, 128, 96)
    assert np.array_equal(made.start, SCENE[32:96, 64:128]), "64x64 pixels seen as 64x64"
    outside = np.ones((96, 128), bool)
    outside[32:, 64:] = False
    assert not made.overlay[outside].any() and made.overlay[32, 90] > 200, "the mask ends with the part"
    pasted = masks.paste_over(np.zeros((64, 64, 3), np.uint8), made)
    assert np.array_equal(pasted[outside], SCENE[outside]) and not pasted[40, 90].any()


def test_a_part_that_is_no_multiple_of_8_comes_back_to_where_it_was() -> None:
    part, smooth = Part(left=64, top=26, width=61, height=62), np.zeros((96, 128, 3), np.uint8)
    smooth[...] = np.linspace(0, 255, 128).astype(np.uint8)[:, None]
    options = replace(OPTIONS, area=InpaintArea.ONLY_MASKED, part=part, blur=0)
    made = masks.plan(smooth, SQUARE, options, Size(width=64, height=64), ResizeMode.JUST_RESIZE)
    assert made is not None
    assert np.abs(masks.paste_over(made.start, made).astype(int) - smooth).max() <= 3


def test_a_part_beyond_the_picture_is_a_sentence() -> None:
    with pytest.raises(RequestError, match=r"The part of 64x64 pixels from \(65, 0\) on is not within .* 128x96"):
        planned(area=InpaintArea.ONLY_MASKED, part=Part(left=65, top=0, width=64, height=64))


@pytest.mark.parametrize("area", InpaintArea)
def test_a_latent_has_a_mask_of_its_own(area: InpaintArea) -> None:
    latent = np.zeros((96, 128), np.uint8)
    latent[:, 90:] = 255
    options = replace(OPTIONS, area=area, content=MaskedContent.FILL, blur=2)
    alone, own = planned(options), planned(options, latent=latent)
    assert np.array_equal(own.mask, alone.mask) and np.array_equal(own.overlay, alone.overlay)
    assert own.painted.shape == (64, 64) and alone.painted is alone.mask
    kept = planned(options, content=MaskedContent.ORIGINAL).start
    left, right = np.s_[:, : 64 * 60 // 128], np.s_[:, -8:]
    if area is InpaintArea.WHOLE:
        assert not own.painted[left].any() and (own.painted[right] == 255).all()
        assert np.array_equal(own.start[left], kept[left]) and not np.array_equal(own.start[right], kept[right])
