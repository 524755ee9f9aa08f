from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.prompt.comments import without_comments
from webui.prompt.compose import parts


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [("", 1.0)]),
        ("a cat", [("a cat", 1.0)]),
        ("a cat AND a dog", [("a cat", 1.0), (" a dog", 1.0)]),
        ("a cat AND a dog :-0.4", [("a cat", 1.0), (" a dog", -0.4)]),
        ("a cat :1.2 AND a dog AND night :0.3", [("a cat", 1.2), (" a dog", 1.0), (" night", 0.3)]),
        ("a : 2", [("a", 2.0)]),
        ("a:2.", [("a", 2.0)]),
        ("a:.5\n", [("a", 0.5)]),
        ("a:+.5", [("a", 0.5)]),
        ("a\nb :1.5", [("a\nb", 1.5)]),
        ("a:b", [("a:b", 1.0)]),
        ("a:1e3", [("a:1e3", 1.0)]),
        ("(a:1.5)", [("(a:1.5)", 1.0)]),
        ("a:1:2", [("a:1", 2.0)]),
        (" :2", [("", 2.0)]),
        ("AND", [("", 1.0), ("", 1.0)]),
        ("SAND AND, and", [("SAND", 1.0), (", and", 1.0)]),
        ("[a AND b:3]", [("[a", 1.0), (" b:3]", 1.0)]),
    ],
)
def test_parts(text: str, found: list[tuple[str, float]]) -> None:
    assert parts(text) == tuple(found)


@given(st.one_of(st.text(), st.lists(st.sampled_from(["AND", " ", "a", ":", "1", ".", "-", "\n"])).map("".join)))
def test_any_text_has_parts_with_finite_weights(text: str) -> None:
    found = parts(text)
    assert len(found) == len(re.findall(r"\bAND\b", text)) + 1
    assert all(math.isfinite(weight) for _, weight in found)
    assert all(part.text in text and part.text == part.text.rstrip() for part in found)


@pytest.mark.parametrize("text", [" " * 100_000 + "x", "a:" + "1" * 99_999, "a" + " :" * 50_000, "AND " * 25_000])
def test_hostile_text_ends(text: str) -> None:
    assert parts(text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a cat", "a cat"),
        ("a red cat # not this\n# nor this line\non a chair", "a red cat \non a chair"),
        ("# all of it", "\n"),
        ("a#b\nc", "a\nc"),
        ("a\n#b\n#c\nd", "a\n\nd"),
        ("#a\nb", "\nb"),
    ],
)
def test_comments(text: str, left: str) -> None:
    assert without_comments(text) == left


@given(st.text(st.sampled_from("a#\n ")))
def test_no_comment_is_left(text: str) -> None:
    left = without_comments(text)
    assert "#" not in left
    assert without_comments(left) == left
    assert left.replace("\n", "") == re.sub(r"#[^\n]*", "", text).replace("\n", "")
