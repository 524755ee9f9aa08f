"""Both outpainting scripts: sizes and masks against AUTOMATIC1111's numbers, the noise against what defines it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from scripts_loaded import SCRIPTS, file
from tiny_model import tiny_request

from webui.errors import RequestError
from webui.images import masks
from webui.request import InpaintArea, Mask, MaskedContent, Noise, Part, ScriptUse, Size, StartImage
from webui.result import Pixels
from webui.scripts import Expansion, expanded

outpainting_mk2, poor_mans_outpainting = file("outpainting_mk2"), file("poor_mans_outpainting")
canvas, filled = file("canvas"), file("spectrum").filled
Growth, Sheet, growth, widened = canvas.Growth, canvas.Sheet, canvas.growth, canvas.widened
START = StartImage(image="a" * 64, denoising_strength=0.8)
MK2, POOR = "Outpainting mk2", "Poor man's outpainting"


def expansion(
    name: str, size: tuple[int, int] = (128, 96), start: StartImage | None = START, **given: Any
) -> Expansion:
    options = {key: given.pop(key) for key in list(given) if key not in ("seed", "batch_count", "noise")}
    request = replace(tiny_request(**given), size=Size(width=512, height=512), start=start)
    use = ScriptUse(name=name, options=options)
    return expanded(replace(request, script=use), SCRIPTS, lambda _: size)


def texture(width: int, height: int, seed: int = 1) -> Pixels:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(4))).copy()


def test_a_picture_grows_one_side_after_the_other() -> None:
    made = expansion(MK2, (512, 512), seed=5, batch_count=2)
    assert [(one.size.width, one.size.height) for one in made.requests[:4]] == [
        (512, 512),  # 640 wide, of which the network sees 512
        (512, 512),
        (768, 512),
        (768, 512),
    ]
    parts = [one.start.mask.part for one in made.requests[:4] if one.start and one.start.mask]
    assert parts == [
        Part(left=0, top=0, width=512, height=512),
        Part(left=256, top=0, width=512, height=512),
        Part(left=0, top=0, width=768, height=512),
        Part(left=0, top=256, width=768, height=512),
    ]
    assert [one.seed for one in made.requests] == [5] * 4 + [6] * 4, "all sides of a picture have its seed"
    assert made.follows == {1: 0, 2: 1, 3: 2, 5: 4, 6: 5, 7: 6} and made.finished == (3, 7)
    assert made.sheets[0].pages[0].cells == (3, 7)
    assert all(one.script is None and one.start and one.start.mask for one in made.requests)
    assert {one.start.mask.blur for one in made.requests if one.start and one.start.mask} == {32}


def test_where_the_network_sees_all_of_it_nothing_is_cut_out() -> None:
    for name in (MK2, POOR):
        (request,) = expansion(name, (128, 128), pixels=64, left=False, up=False, down=False).requests
        assert request.start is not None and request.start.mask is not None
        assert request.size == Size(width=192, height=128)
        assert request.start.mask.area is InpaintArea.WHOLE and request.start.mask.part is None


@given(st.integers(1, 700), st.integers(1, 700), st.integers(8, 256), st.lists(st.booleans(), min_size=4, max_size=4))
def test_the_sides_that_grow_become_multiples_of_64(width: int, height: int, pixels: int, sides: list[bool]) -> None:
    if not any(sides):
        with pytest.raises(RequestError, match="no direction"):
            growth((width, height), pixels, Growth(*sides))
        return
    grows = growth((width, height), pixels, Growth(*sides))
    assert [bool(side) for side in grows] == sides
    for side, first, second in ((width, grows.left, grows.right), (height, grows.up, grows.down)):
        count = bool(first) + bool(second)
        assert side + first + second == (-(-(side + count * pixels) // 64) * 64 if count else side)
        assert count < 2 or 0 <= second - first <= 1


@pytest.mark.parametrize(("step", "side"), [(0, np.s_[:, :72]), (1, np.s_[:, -72:]), (2, np.s_[:72]), (3, np.s_[-72:])])
def test_noise_and_masks_reach_into_the_picture_by_the_blur(step: int, side: Any) -> None:
    made = expansion(MK2, (128, 128), pixels=64, mask_blur=8)
    before = texture(*[(128, 128), (192, 128), (256, 128), (256, 192)][step])
    begun = made.prepared[step](before)
    assert begun.mask is not None and begun.latent is not None
    noised, expected = begun.mask == 255, np.zeros_like(begun.mask, bool)
    expected[side] = True
    assert np.array_equal(noised, expected), "64 new pixels and 8 of the picture"
    assert np.array_equal(begun.latent == 255, widened(expected, 8))
    sheet = {0: Growth(64), 1: Growth(right=64), 2: Growth(up=64), 3: Growth(down=64)}[step]
    laid = Sheet((before.shape[1], before.shape[0]), sheet).laid(before)
    assert np.array_equal(begun.image[~noised], laid[~noised])
    assert not (begun.image[noised] == 0).all(axis=1).any(), "nothing is left black"


@pytest.mark.parametrize("color_variation", [0.0, 0.05, 1.0])
def test_the_noise_has_the_colours_of_the_picture(color_variation: float) -> None:
    known = texture(192, 128)
    pixels, unknown = np.zeros((128, 256, 3), np.uint8), np.ones((128, 256), bool)
    pixels[:, :192], unknown[:, :192] = known, False
    noise = filled(pixels, unknown, 1.0, color_variation)[unknown]
    shares = np.linspace(0.02, 0.98, 9)
    for channel in range(3):
        here, there = np.quantile(noise[:, channel], shares), np.quantile(known[..., channel], shares)
        assert np.abs(here - there).max() <= 2, "the picture's quantiles, cut to whole bytes"


def test_the_noise_is_as_fine_as_the_picture_and_finer_with_a_lower_exponent() -> None:
    def roughness(levels: np.ndarray) -> float:
        grey = levels.astype(float).mean(axis=2)
        return float(np.abs(np.diff(grey, axis=1)).mean() / grey.std())

    pixels, unknown = np.zeros((128, 256, 3), np.uint8), np.ones((128, 256), bool)
    pixels[:, :192], unknown[:, :192] = texture(192, 128), False
    made = [roughness(filled(pixels, unknown, power, 0.05)[:, 192:]) for power in (0.0, 1.0, 2.0)]
    assert made[0] > made[1] > made[2]


def test_the_same_picture_gets_the_same_noise_and_a_plain_one_its_own_colour() -> None:
    pixels, unknown = np.zeros((64, 96, 3), np.uint8), np.ones((64, 96), bool)
    pixels[:, :64], unknown[:, :64] = (200, 30, 90), False
    first, again = (filled(pixels, unknown, 1.0, 0.05) for _ in range(2))
    assert np.array_equal(first, again) and np.abs(first.astype(int) - (200, 30, 90)).max() <= 1
    assert not filled(np.zeros((64, 96, 3), np.uint8), unknown, 1.0, 0.05).any(), "a black picture stays black"


def test_a_sheet_of_one_tile_is_upstreams() -> None:
    made = expansion(POOR, (256, 256), pixels=128, mask_blur=4, content="latent noise")
    (request,) = made.requests
    assert request.size == Size(width=512, height=512) and made.finished == (0,) and not made.sheets
    begun = made.prepared[0](texture(256, 256))
    assert begun.mask is not None and begun.latent is not None
    for mask, inset in ((begun.mask, 128 + 8), (begun.latent, 128 + 2)):
        inside = np.zeros((512, 512), bool)
        inside[inset:-inset, inset:-inset] = True
        assert np.array_equal(mask == 0, inside)
    assert request.start is not None and request.start.mask is not None
    assert (request.start.mask.content, request.start.mask.blur) == (MaskedContent.LATENT_NOISE, 8)
    assert not begun.image[:128].any() and np.array_equal(begun.image[128:384, 128:384], texture(256, 256))


def test_every_pixel_of_the_margin_is_painted_by_one_tile_and_kept_by_the_later_ones() -> None:
    made = expansion(POOR, (640, 448), pixels=64, mask_blur=0, seed=9)
    assert len(made.requests) == 4 and [one.seed for one in made.requests] == [9, 10, 11, 12]
    canvas, painted = texture(640, 448), np.zeros((576, 768), int)
    for place, request in enumerate(made.requests):
        begun = made.prepared[place](canvas)
        assert request.start is not None and request.start.mask is not None and begun.mask is not None
        options, part = request.start.mask, request.start.mask.part
        assert part is not None
        seen = np.s_[part.top : part.top + part.height, part.left : part.left + part.width]
        painted[seen] += begun.mask[seen] == 255
        planned = masks.plan(begun.image, begun.mask, options, request.size, request.start.resize_mode)
        assert planned is not None
        canvas = masks.paste_over(np.full((512, 512, 3), place + 1, np.uint8), planned)
    inside = np.s_[64:-64, 64:-64]
    assert not painted[inside].any() and np.array_equal(canvas[inside], texture(640, 448))
    painted[inside] = 1
    assert (painted == 1).all() and set(np.unique(canvas[:64])) <= {1, 2}


def test_a_tile_that_lies_within_the_picture_is_left_out() -> None:
    made = expansion(POOR, (1200, 400), pixels=112, left=False, up=False, down=False)
    assert len(made.requests) == 1, "three tiles a row, of which the last alone has something new"


def test_variations_count_as_in_a_batch() -> None:
    noise = Noise(variation_seed=40, variation_strength=0.5)
    made = expansion(MK2, right=False, up=False, down=False, seed=9, batch_count=2, noise=noise)
    assert [(one.seed, one.noise.variation_seed) for one in made.requests] == [(9, 40), (9, 41)]


@pytest.mark.parametrize(
    ("name", "more", "sentence"),
    [
        (MK2, {"start": None}, "belongs to img2img"),
        (MK2, {"start": replace(START, mask=Mask(image="b" * 64))}, "take the mask away"),
        (POOR, {"left": False, "right": False, "up": False, "down": False}, "no direction"),
        (MK2, {"pixels": 7}, "Pixels to expand"),
        (MK2, {"pixels": 256, "size": (256, 4000)}, "768 x 4544 pixels"),
        (POOR, {"content": "noise"}, "masked content"),
        (POOR, {"content": "fill", "pixels": 8.5}, "Pixels to expand"),
        (MK2, {"left": 1}, "Outpainting left"),
    ],
)
def test_what_cannot_be_is_a_sentence(name: str, more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        expansion(name, **more)


def test_a_network_that_would_see_nothing_of_the_picture_is_refused() -> None:
    use = ScriptUse(name=MK2, options={"pixels": 128})
    request = replace(tiny_request(), size=Size(width=128, height=128), start=START, script=use)
    with pytest.raises(RequestError, match="The width of 128 pixels shows nothing of the picture beside the 128 new"):
        expanded(request, SCRIPTS, lambda _: (256, 256))
    with pytest.raises(RequestError, match="overlap by the 128 pixels"):
        expanded(replace(request, script=replace(use, name=POOR)), SCRIPTS, lambda _: (256, 256))
    blurred = expansion(MK2, (64, 64), pixels=64, mask_blur=64)
    with pytest.raises(RequestError, match="reaches through the whole picture"):
        blurred.prepared[0](texture(64, 64))


def test_clients_send_positions() -> None:
    assert outpainting_mk2.options_from([None, 64, 4, ["left", "down"], 0.5], True) == {
        **{"pixels": 64, "mask_blur": 4, "fall_off": 0.5, "color_variation": 0.05},
        **{"left": True, "right": False, "up": False, "down": True},
    }
    named = poor_mans_outpainting.options_from([64, 4, 2, ["up"]], True)
    assert (named["content"], named["up"], named["left"]) == ("latent noise", True, False)
    assert poor_mans_outpainting.options_from([64, 4, "original"], True)["content"] == "original"
    assert outpainting_mk2.Options(**outpainting_mk2.options_from([], True)) == outpainting_mk2.Options()
    assert poor_mans_outpainting.Options(**poor_mans_outpainting.options_from([], True)) == (
        poor_mans_outpainting.Options()
    )
    with pytest.raises(RequestError, match="masked content number 4"):
        poor_mans_outpainting.options_from([64, 4, 4], True)
    with pytest.raises(RequestError, match="list of left, right, up, down"):
        outpainting_mk2.options_from([None, 64, 4, ["north"]], True)
