"""Prompt editing against readings of AUTOMATIC1111's grammar, and its rules where they can be said in another way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.prompt.schedule import Span, Timeline, at_call, schedule

TEN = Timeline(10)
EDITS: dict[str, list[tuple[int, str]]] = {
    "test": [(10, "test")],
    "a [b:3]": [(3, "a "), (10, "a b")],
    "a [b: 3]": [(3, "a "), (10, "a b")],
    "a [b:\t3\n]": [(3, "a "), (10, "a b")],
    "a [[[b]]:2]": [(2, "a "), (10, "a [[b]]")],
    "[(a:2):3]": [(3, ""), (10, "(a:2)")],
    "a [b : c : 1] d": [(1, "a b  d"), (10, "a  c  d")],
    "a[b:[c:d:2]:1]e": [(1, "abe"), (2, "ace"), (10, "ade")],
    "a [unbalanced": [(10, "a [unbalanced")],
    "a [b:.5] c": [(5, "a  c"), (10, "a b c")],
    "a [b::0.3] c": [(3, "a b c"), (10, "a  c")],
    "((a][:b:c [d:3]": [(3, "((a][:b:c "), (10, "((a][:b:c d")],
    "([b:3]": [(3, "("), (10, "(b")],
    "[[b]:3]": [(3, ""), (10, "[b]")],
    "[[b:3]]": [(3, "[]"), (10, "[b]")],
    "(a [b:c:3]:1.3)": [(3, "(a b:1.3)"), (10, "(a c:1.3)")],
    "[a:0]": [(10, "a")],
    "[a:b:-1]": [(10, "b")],
    "[a:b:0.0]": [(10, "b")],
    "[a:b:99]": [(10, "a")],
    "[a:b:1e9999]": [(10, "a")],
    "[a:b:1.]": [(10, "a")],  # all of the steps
    "[a:b:1]": [(1, "a"), (10, "b")],
    "[a:b:+4]": [(4, "a"), (10, "b")],
    "[:3]": [(3, ""), (10, "")],
    "[a:b:c:3]": [(10, "[a:b:c:3]")],
    "[a:b:x]": [(10, "[a:b:x]")],
    "[a:b:3 4]": [(10, "[a:b:3 4]")],
    "[a:(b:3]": [(10, "[a:(b:3]")],
    "[a:b): [c:d:2]:1]": [(2, "[a:b): c:1]"), (10, "[a:b): d:1]")],
    r"[a\:b:3]": [(3, ""), (10, r"a\:b")],
    r"\[a:b:3]": [(10, r"\[a:b:3]")],
    r"[a\]:b:3]": [(3, r"a\]"), (10, "b")],
    "[a:b:3] | c": [(10, "[a:b:3] | c")],  # a bar outside an alternation: nothing is scheduled
    "[a:b:3] (c|d)": [(10, "[a:b:3] (c|d)")],
    "[a|b:3] [c:3]": [(10, "[a|b:3] [c:3]")],
    "[x|[c:3]": [(10, "[x|[c:3]")],
    "[a:3] \\": [(10, "[a:3] \\")],
    "[a:3] \\\n": [(10, "[a:3] \\\n")],
    "[a:3] \\\\": [(3, " \\\\"), (10, "a \\\\")],
}


@pytest.mark.parametrize("text", EDITS)
def test_editing(text: str) -> None:
    assert schedule(text, TEN) == tuple(Span(*span) for span in EDITS[text])


ALTERNATIONS = {
    "[a|(b:1.1)]": ["a", "(b:1.1)"],
    "[fe|]male": ["female", "male"],
    "[fe|||]male": ["female", "male", "male", "male"],
    "[|a]": ["", "a"],
    "[a|[b|c]]": ["a", "b", "a", "c"],
    "x ) [a|b]": ["x ) a", "x ) b"],
}


@pytest.mark.parametrize("text", ALTERNATIONS)
def test_alternation(text: str) -> None:
    turns = ALTERNATIONS[text]
    if text == "[a|[b|c]]":  # both count the same steps: the inner one is asked at the even ones alone
        turns = ["a", "c"]
    assert schedule(text, TEN) == tuple(Span(step, turns[(step - 1) % len(turns)]) for step in range(1, 11))


def test_editing_in_an_alternation() -> None:
    spans = schedule("[a|[b:c:4]]", Timeline(6))
    assert [text for _, text in spans] == ["a", "b", "a", "b", "a", "c"]


SECOND = Timeline(10, 6, True)


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("[a:b:0.5]", [(6, "b")]),
        ("[a:b:8]", [(6, "b")]),
        ("[a:b:1.5]", [(3, "a"), (6, "b")]),
        ("[a:b:12]", [(2, "a"), (6, "b")]),
        ("[a:b:2.0]", [(6, "a")]),
        ("[a:b:1.0]", [(6, "b")]),
        ("[[a:b:0.5]:c:1.5]", [(3, "b"), (6, "c")]),
    ],
)
def test_numbers_of_the_second_pass(text: str, spans: list[tuple[int, str]]) -> None:
    assert schedule(text, SECOND) == tuple(Span(*span) for span in spans)


def test_numbers_of_the_second_pass_are_beyond_the_first() -> None:
    for number in ("1.5", "12"):
        assert schedule(f"[a:b:{number}]", Timeline(10, 6)) == ((10, "a"),)
    assert Timeline(10, 0, True).length == 10


def test_the_denoisers_calls() -> None:
    spans = schedule("[a|b]", Timeline(4))
    told = [spans[at_call(spans, call)].text for call in range(7)]
    assert told == ["a", "a", "b", "a", "b", "a", "a"]  # the first lasts two calls; after the end comes the first
    spans = schedule("[a:b:0.5]", Timeline(4))
    assert [spans[at_call(spans, call)].text for call in range(5)] == ["a", "a", "a", "b", "b"]


pieces = st.sampled_from([*"()[]:| \\\nab3.", "[a:b:", ":3]", ":.5]", ":1.5 ]", "|]", r"\[", "cat"])
prompts = st.lists(pieces, max_size=30).map("".join)
timelines = st.builds(Timeline, st.integers(1, 12), st.integers(0, 12), st.booleans())


@given(st.one_of(prompts, st.text()), timelines)
def test_any_text_has_spans_up_to_the_last_step(text: str, timeline: Timeline) -> None:
    spans = schedule(text, timeline)
    assert spans[-1].last == timeline.length
    assert [last for last, _ in spans] == sorted({last for last, _ in spans if last >= 1})
    assert all(len(said) <= len(text) for _, said in spans)


@given(prompts)
def test_text_in_no_group_stays(text: str) -> None:
    """Brackets of round kind alone can never change with the steps."""
    text = text.replace("[", "(").replace("]", ")")
    assert schedule(text, TEN) == ((10, text),)


@given(prompts.filter(lambda text: "|" not in text and "\\" not in text))
def test_a_stray_bracket_before_changes_nothing_else(text: str) -> None:
    """What is unpaired spoils only what is around it."""
    assert schedule("] " + text, TEN) == tuple((last, "] " + said) for last, said in schedule(text, TEN))


HOSTILE = [
    "[" * 100_000,
    "[a:" * 30_000 + "b" + ":3]" * 30_000,
    "[a:b:3]" * 10_000,
    "([a" * 30_000,
    "[a:b" + ":3" * 40_000,
    "[|" * 30_000 + "]" * 30_000,
    "[a:" + " " * 99_000 + "]",
    "[a:" + "1" * 90_000 + "x]",
    "\\[a]" * 20_000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_ends(text: str) -> None:
    """Earley's algorithm would take hours."""
    assert schedule(text, Timeline(3))
