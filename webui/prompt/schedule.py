"""text -> what it says at each step: prompt editing and alternation.

    [a:b:0.5]   a, and from half of the steps on b      [b:8]    nothing, b after step 8
    [a::0.5]    a, and from half of the steps on nothing [a|b|]   a, b, nothing, a, b, ... with every step

They nest, also in the brackets of the attention grammar, which stay in the text for ``syntax`` to read.  Rules of
AUTOMATIC1111 (``modules/prompt_parser.py``): a number with a point is a share of the steps, one without counts them;
a pair of brackets that means neither is left alone with what is between them still read; and a text where ``|`` stands
outside an alternation, or a backslash before nothing or a line's end, is not scheduled at all.

Its grammar is ambiguous, and Earley's algorithm takes cubic time over it.  Here one pass pairs the brackets, which
comes to the same: brackets within a bracket must be paired for it to mean anything, so a pair is only ever spoilt from
inside.  Where a stray bracket touches an edit, ``a[b:3])``, its reading changes with Python's hash seed from run to
run; here the edit counts.  Linear time in the length of the text for each step.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_TOKEN = re.compile(r"(?:[^\\\[\]():|]|\\.)+|.", re.DOTALL)
_BROKEN_ESCAPE = re.compile(r"\\(?:\n|\Z)")
_ESCAPE = re.compile(r"\\.", re.DOTALL)
_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")


@dataclass(frozen=True)
class Timeline:
    """How the numbers in a prompt are counted.

    ``steps`` and ``hires_steps`` are calls of the denoiser in the first pass and in the second (0: as many as in the
    first), so twice the sampler's steps for one that asks twice a step.  In the second pass 1.5 is half of it and
    ``steps`` + 3 its third step; the first pass's numbers are over by then.
    """

    steps: int
    hires_steps: int = 0
    is_second_pass: bool = False

    @property
    def length(self) -> int:
        """Steps of this pass."""
        return self.hires_steps or self.steps if self.is_second_pass else self.steps

    def last(self, number: str) -> int:
        """The last step before the switch at ``number``; below 1 the switch was before the beginning."""
        share = "." in number
        passed = (1.0 if share else float(self.steps)) if self.is_second_pass else 0.0
        step = (float(number) - passed) * (self.length if share else 1)
        return int(max(-1.0, min(float(self.length), step)))


class Span(NamedTuple):
    """What the prompt says up to and including step ``last``, counted from 1."""

    last: int
    text: str


@dataclass(frozen=True)
class _Group:
    """A bracket that changes with the steps: the places of its marks among the tokens.

    ``when`` is None for an alternation; ``marks`` are the opening bracket, the separators and the closing one.
    """

    marks: tuple[int, ...]
    when: str | None = None

    def chosen(self, step: int, last: int) -> tuple[int, int]:
        """The places of the tokens that count at ``step``, from and to; ``last`` is the step of the switch."""
        if self.when is None:
            option = (step - 1) % (len(self.marks) - 1)
            return self.marks[option] + 1, self.marks[option + 1]
        before, after = ((0, 1), (1, 2)) if len(self.marks) == 4 else ((0, 0), (0, 1))
        first, end = before if step <= last else after
        return (self.marks[first] + 1, self.marks[end]) if end > first else (self.marks[-1], self.marks[-1])


@dataclass
class _Open:
    """A bracket that was opened, and the separators that stand directly in it."""

    place: int
    mark: str
    colons: list[int] = field(default_factory=list)
    bars: list[int] = field(default_factory=list)


def schedule(text: str, timeline: Timeline) -> tuple[Span, ...]:
    """What ``text`` says over a pass, in order, never empty; the last span ends with the pass.  Never fails.

    >>> schedule("a [red:blue:0.5] cat", Timeline(20))
    (Span(last=10, text='a red cat'), Span(last=20, text='a blue cat'))
    """
    whole = (Span(timeline.length, text),)
    if "[" not in text or _is_broken(text):
        return whole
    tokens = _TOKEN.findall(text)
    groups = _groups(tokens)
    if not groups:
        return whole
    switches = {place: timeline.last(group.when) for place, group in groups.items() if group.when is not None}
    ends = {timeline.length, *(last for last in switches.values() if last >= 1)}
    if len(switches) < len(groups):
        ends |= set(range(1, timeline.length + 1))
    said: dict[tuple[tuple[int, int], ...], str] = {}
    spans = []
    for end in sorted(ends):
        chosen = {place: group.chosen(end, switches.get(place, 0)) for place, group in groups.items()}
        key = tuple(chosen.values())
        if key not in said:
            said[key] = _said(tokens, groups, chosen)
        spans.append(Span(end, said[key]))
    return tuple(spans)


def at_call(spans: Sequence[Span], call: int) -> int:
    """Which span the denoiser's call ``call``, counted from 0, is made with.

    As AUTOMATIC1111 compares (``reconstruct_cond_batch``), a span lasts through the call of its last step's number, so
    the first lasts one call longer than its steps say; calls after the end of the schedule begin it again.
    """
    return next((index for index, span in enumerate(spans) if call <= span.last), 0)


def _is_broken(text: str) -> bool:
    """Whether a backslash escapes nothing or a line's end."""
    return "\\" in text and any(_BROKEN_ESCAPE.fullmatch(found) for found in _ESCAPE.findall(text + "\n"))


def _groups(tokens: Sequence[str]) -> dict[int, _Group]:
    """The groups by the place of their opening bracket; none where a bar stands in no alternation."""
    groups: dict[int, _Group] = {}
    opened: list[_Open] = []
    for place, token in enumerate(tokens):
        if token in ("(", "["):
            opened.append(_Open(place, token))
        elif token == ":" and opened:
            opened[-1].colons.append(place)
        elif token == "|":
            if not opened or opened[-1].mark == "(":
                return {}
            opened[-1].bars.append(place)
        elif token in (")", "]") and opened:
            last = opened.pop()
            if not _closes(last, token, place, tokens, groups):  # nothing around it can be a pair either
                if any(bracket.bars for bracket in (*opened, last)):
                    return {}
                opened.clear()
    return {} if any(bracket.bars for bracket in opened) else groups


def _closes(opened: _Open, token: str, place: int, tokens: Sequence[str], groups: dict[int, _Group]) -> bool:
    """Whether ``token`` makes a pair with the bracket; one that changes with the steps is added to ``groups``."""
    colons, bars = opened.colons, opened.bars
    if opened.mark == "(":
        return token == ")" and len(colons) <= 1
    if token == ")" or (colons and bars):
        return False
    if bars:
        groups[opened.place] = _Group((opened.place, *bars, place))
    elif colons:
        number = _NUMBER.fullmatch("".join(tokens[colons[-1] + 1 : place])) if place == colons[-1] + 2 else None
        if len(colons) > 2 or number is None:
            return False
        groups[opened.place] = _Group((opened.place, *colons, place), number[1])
    return True


def _said(tokens: Sequence[str], groups: dict[int, _Group], chosen: dict[int, tuple[int, int]]) -> str:
    """The text where the tokens ``chosen`` stand for their groups."""
    said: list[str] = []
    leave: dict[int, int] = {}
    place = 0
    while place < len(tokens):
        if place in leave:
            place = leave[place]
        elif group := groups.get(place):
            first, end = chosen[place]
            leave[end] = group.marks[-1] + 1
            place = first
        else:
            said.append(tokens[place])
            place += 1
    return "".join(said)
