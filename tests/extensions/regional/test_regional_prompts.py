"""The words that divide a prompt, by the examples of Regional Prompter's README."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from regional_loaded import file

prompts = file("prompts")
Texts = prompts.Texts


def split(prompt: str, separator: str = "BREAK", **how: object) -> object:
    return prompts.split(prompt, separator, **{"common": False, "base": False, **how})


@pytest.mark.parametrize(
    ("prompt", "how", "expected"),
    [
        ("green hair BREAK\nred blouse BREAK\nblue skirt", {}, Texts(("green hair", "red blouse", "blue skirt"))),
        (
            "best quality BREAK green hair BREAK red blouse",
            {"common": True},
            Texts(("best quality, green hair", "best quality, red blouse")),
        ),
        ("a girl BREAK red hair BREAK green dress", {"base": True}, Texts(("red hair", "green dress"), "a girl")),
        (
            "best BREAK a girl BREAK red hair BREAK green dress",
            {"common": True, "base": True},
            Texts(("best, red hair", "best, green dress"), "best, a girl"),
        ),
        ("a girl ADDCOMM red hair BREAK green dress", {}, Texts(("a girl, red hair", "a girl, green dress"))),
        ("a girl ADDBASE red hair BREAK green dress", {}, Texts(("red hair", "green dress"), "a girl")),
        (
            "fantasy ADDCOMM sky ADDROW castle ADDROW stalls ADDCOL street ADDCOL stalls",
            {},
            Texts(
                ("fantasy, sky", "fantasy, castle", "fantasy, stalls", "fantasy, street", "fantasy, stalls"),
                bands=(1, 1, 3),
            ),
        ),
        ("a ADDCOL b ADDROW c", {"new_band": "ADDCOL"}, Texts(("a", "b", "c"), bands=(1, 2))),
        ("a BREAK b ADDROW c", {}, Texts(("a", "b", "c"), bands=(2, 1))),
        ("BREAKFAST in bed", {}, Texts(("BREAKFAST in bed",))),
        ("a BREAK  BREAK b", {}, Texts(("a", "", "b"))),
        ("alone", {"common": True, "base": True}, Texts(("alone",), "")),
    ],
)
def test_texts_and_their_places(prompt: str, how: dict[str, object], expected: object) -> None:
    assert split(prompt, **how) == expected


def test_lines_are_regions_where_that_is_chosen() -> None:
    assert split("a cat\n\n a dog BREAK here\n", "Lines") == Texts(("a cat", "a dog BREAK here"))
    assert split("", "Lines") == Texts(("",))
    assert split("a\nb\nc", "Lines", common=True) == Texts(("a, b", "a, c"))


@given(texts=st.lists(st.text("abc ,(:1.2)", max_size=8).map(str.strip), min_size=1, max_size=6))
def test_what_is_joined_by_break_comes_apart_again(texts: list[str]) -> None:
    assert split(" BREAK ".join(texts)) == Texts(tuple(texts))
