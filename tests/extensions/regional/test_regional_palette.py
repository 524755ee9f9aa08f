"""What the page paints regions with: a colour for each text of the prompt, and where the grid has it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from regional_loaded import REGIONAL, file

from webui.conditioning import Palette
from webui.conditioning.modules import options_of
from webui.request import GenerationRequest

grid, painting = file("grid"), file("painting")


def palette(prompt: str, **options: object) -> Palette:
    found = REGIONAL.palette(options_of(REGIONAL, options), GenerationRequest(prompt=prompt))
    assert isinstance(found, Palette)
    return found


def test_each_text_has_its_colour_and_an_even_share_of_the_picture() -> None:
    found = palette("a cat BREAK a dog BREAK a cow BREAK ")
    assert [(one.name, one.text) for one in found.paints] == [
        ("red", "a cat"), ("cyan", "a dog"), ("lime", "a cow"), ("violet", ""),
    ]  # fmt: skip
    assert [one.places for one in found.paints] == [((n / 4, 0, (n + 1) / 4, 1),) for n in range(4)]
    assert found.rest == "as region 1, red" and found.problem == ""


def test_the_options_move_the_regions_and_take_texts_away() -> None:
    found = palette("best BREAK sky BREAK a cat BREAK a dog", use_common=True, use_base=True, mode="Rows", ratios="1,3")
    assert [(one.text, one.places) for one in found.paints] == [
        ("a cat", ((0, 0, 1, 0.25),)), ("a dog", ((0, 0.25, 1, 1),)),
    ]  # fmt: skip
    assert found.rest == "best, sky"
    assert [one.text for one in palette("a cat\na dog", separator="Lines").paints] == ["a cat", "a dog"]
    assert palette("a ADDROW b ADDCOL c").paints[1].places == ((0, 0.5, 0.5, 1),)


def test_ratios_that_do_not_fit_leave_the_colours() -> None:
    for ratios, told in (("1,1,1", "make 3 regions and the prompt has 2"), ("1,x", "it must be numbers above 0")):
        found = palette("a BREAK b", ratios=ratios)
        assert [(one.name, one.places) for one in found.paints] == [("red", ()), ("cyan", ())]
        assert told in found.problem
    found = palette("a AND b")
    assert found.paints == () and "write BREAK between" in found.problem


def test_both_of_its_colours_mean_the_region_they_are_of() -> None:
    """What is written into the picture is what Regional Prompter writes; what is shown would do as well."""
    for count in range(1, 13):
        found = palette(" BREAK ".join("x" * count)).paints
        for written in ([one.colour for one in found], [one.shown for one in found]):
            pixels = np.array([[list(bytes.fromhex(one[1:])) for one in written]], np.uint8)
            assert painting.painted(pixels, count)[0].tolist() == list(range(count))


@given(
    ratios=st.lists(st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=4), min_size=1, max_size=4),
    mode=st.sampled_from(["Columns", "Rows"]),
)
def test_places_are_where_the_masks_are(ratios: list[list[float]], mode: str) -> None:
    outer, inner = (";", ",") if mode == "Columns" else (",", ";")
    text = outer.join(inner.join(f"{number:.12g}" for number in row) for row in ratios)
    bands = grid.parse(text, mode)
    masks = grid.masks(bands, mode, 16, 24)
    places = grid.places(bands, mode)
    assert len(places) == len(masks)
    for mask, (left, top, right, bottom) in zip(masks, places, strict=True):
        assert 0 <= left <= right <= 1 and 0 <= top <= bottom <= 1
        assert mask.sum() == pytest.approx((right - left) * (bottom - top) * 16 * 24, abs=1e-3)
        rows, columns = np.nonzero(mask > 1e-3)
        if len(rows):
            assert left * 16 - 1e-3 <= columns.min() + 1 and columns.max() <= right * 16 + 1e-3
            assert top * 24 - 1e-3 <= rows.min() + 1 and rows.max() <= bottom * 24 + 1e-3


def test_numbers_whose_sum_is_no_number_are_refused() -> None:
    assert "must be numbers above 0" in palette("a BREAK b BREAK c", ratios="1e308,1e308,1e308").problem
