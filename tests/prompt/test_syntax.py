"""The attention grammar against the examples of its documentation and a plain restatement of its rules."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from webui.prompt.syntax import BREAK, MAX_WEIGHT, Piece, parse_attention

EXAMPLES = {
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "(unbalanced": [("unbalanced", 1.1)],
    r"\(literal\]": [("(literal]", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1.0),
        ("house", 1.5730000000000004),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641000000000006),
        (".", 1.1),
    ],
    "": [("", 1.0)],
    "[a]": [("a", 1 / 1.1)],
    "a ) b ] c": [("a ) b ] c", 1.0)],
    "a red cat on [a chair": [("a red cat on ", 1.0), ("a chair", 1 / 1.1)],
    r"face\:1.2)": [("face:1.2)", 1.0)],
    r"(face\:1.2)": [("face", 1.2)],  # the backslash goes, and the colon is still a colon
    "(a: 1.5 )": [("a", 1.5)],
    "(a:-2)": [("a", -2.0)],
    "(a:1.2.3)": [("a:1.2.3", 1.1)],
    "(a [b) c]": [("a ", 1.1), ("b", 1.1 * (1 / 1.1)), (" c", 1 / 1.1)],
    "a:b (c:d:1.2)": [("a:b ", 1.0), ("c:d", 1.2)],
    "a BREAK b": [("a", 1.0), BREAK, ("b", 1.0)],
    "aBREAK b": [("aBREAK b", 1.0)],
    "BREAK BREAK": [("", 1.0), BREAK, ("", 1.0), BREAK, ("", 1.0)],
    "(a BREAK b:1.3)": [("a", 1.3), ("BREAK", -1.3), ("b", 1.3)],  # weighted, it is a word
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_example(text: str) -> None:
    assert parse_attention(text) == EXAMPLES[text]


def restated(text: str) -> list[tuple[str, float]]:
    """The rules said another way: each close multiplies everything since its bracket opened, in quadratic time."""
    number = r"[+-]?(?:\d+\.?\d*|\.\d+)"
    tokens = re.findall(rf"\\[\\()\[\]]?|:\s*{number}\s*\)|[()\[\]:]|[^\\()\[\]:]+", text)
    found: list[tuple[str, list[float]]] = []
    open_at: dict[str, list[int]] = {"(": [], "[": []}

    def close(kind: str, factor: float) -> None:
        for _, factors in found[open_at[kind].pop() :]:
            factors.append(factor)

    for token in tokens:
        if token in open_at:
            open_at[token].append(len(found))
        elif token[-1] == ")" and token[0] != "\\" and open_at["("]:
            close("(", 1.1 if token == ")" else float(token.strip(": )\t\n")) if token[:1] == ":" else 1.1)
        elif token == "]" and open_at["["]:
            close("[", 1 / 1.1)
        elif token[0] == "\\":
            found.append((token[1:], [1.0]))
        else:
            for part in re.split(r"(\s*\bBREAK\b\s*)", token):
                is_break = bool(re.fullmatch(r"\s*\bBREAK\b\s*", part))
                found.append(("BREAK", [-1.0]) if is_break else (part, [1.0]))
    for kind, factor in (("(", 1.1), ("[", 1 / 1.1)):
        while open_at[kind]:
            close(kind, factor)
    joined: list[tuple[str, float]] = []
    for text_, factors in found:
        weight = math.prod(factors, start=1.0)
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + text_, weight)
        else:
            joined.append((text_, weight))
    return joined or [("", 1.0)]


prompts = st.lists(
    st.sampled_from([*"()[]:\\ a,.1", ":1.3)", ":.5)", "BREAK", " BREAK ", r"\(", "((", "))", "cat"]), max_size=24
).map("".join)


@given(prompts)
@example("(:)BREAK:2)")
def test_restated_rules_give_the_same_pieces(text: str) -> None:
    assert parse_attention(text) == [Piece(*piece) for piece in restated(text)]


@given(st.text())
def test_any_text_has_finite_pieces(text: str) -> None:
    pieces = parse_attention(text)
    assert pieces
    assert all(abs(weight) <= MAX_WEIGHT for _, weight in pieces)


@given(
    st.text(st.characters(exclude_characters="()[]:\\", exclude_categories=["Cs"])).filter(lambda t: "BREAK" not in t)
)
def test_text_without_marks_is_left_alone(text: str) -> None:
    assert parse_attention(text) == [(text, 1.0)]


def test_escaping_every_mark_gives_the_text_back() -> None:
    text = "a (b) [c] \\ (d"
    assert parse_attention(re.sub(r"([()\[\]\\])", r"\\\1", text)) == [(text, 1.0)]


@pytest.mark.parametrize(
    "text", ["(a" * 33_000 + ")" * 33_000, "[(" * 50_000 + "x", ":1" * 50_000, " " * 100_000, ":" + "1" * 99_999]
)
def test_hostile_nesting_ends(text: str) -> None:
    """Quadratic work on these would take minutes."""
    assert parse_attention(text)


def test_a_deep_nest_has_the_product_of_all_factors() -> None:
    (piece,) = parse_attention("(" * 200 + "a" + ")" * 200)
    assert piece.weight == pytest.approx(1.1**200, rel=1e-12)
