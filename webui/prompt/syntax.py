"""text -> weighted pieces: the attention grammar of prompts.

    (a)        a, 1.1 times as strong          \\(  \\)  \\[  \\]  \\\\    the character itself
    [a]        a, divided by 1.1               BREAK               starts a new chunk of tokens
    (a:1.3)    a, 1.3 times as strong

Any text has a meaning: an unclosed bracket reaches to the end, a closing one that opens nothing is text.  The rules are
those of AUTOMATIC1111 (``modules/prompt_parser.py``, ``parse_prompt_attention``), down to its oddities, because prompts
rely on them; one of its errors is not kept: a weight that is no number (``(a:1.2.3)``) is text here.

A hand-written scanner, not a grammar: round and square brackets may overlap, ``(a [b) c]``, which no context-free
grammar expresses, and nothing may ever be a syntax error.  Called by ``chunks``; prompt editing, AND and extra networks
are resolved before a text arrives here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

ROUND_FACTOR = 1.1
SQUARE_FACTOR = 1 / 1.1
MAX_WEIGHT = 1e9
"""Weights beyond this would overflow in the encoder, so they are held here."""

_EXACT_DEPTH = 64
"""How many brackets around a piece are multiplied in AUTOMATIC1111's order, from the inside.

Products of floats depend on their order in the last bit, and equal weights are joined, so the order is kept as far as
brackets are nested in earnest; further out the product from the outside is taken, which is known for all pieces at once
and keeps the time linear in the length of the text.
"""

_TOKEN = re.compile(
    r"""
    \\ (?P<escaped> [\\()\[\]]? )
    | (?P<open> [(\[] )
    | :\s* (?P<weight> [+-]? (?: \d+ (?:\.\d*)? | \.\d+ ) ) \s*\)
    | (?P<close> [)\]] )
    | [^\\()\[\]:]+
    | :
    """,
    re.VERBOSE,
)
_BREAK_WORD = re.compile(r"\bBREAK\b")


class Piece(NamedTuple):
    """A stretch of text and its weight (1: as it is)."""

    text: str
    weight: float


BREAK = Piece("BREAK", -1.0)
"""The piece that ends a chunk.  Inside brackets the word gets another weight, and so it is a word like any other."""


@dataclass(slots=True, eq=False)
class _Bracket:
    """A bracket; ``closed`` is its place in the order of closing, ``outer`` the product with those around it."""

    parent: _Bracket | None
    factor: float
    closed: float = math.inf
    outer: float = 1.0


class _Scanned(NamedTuple):
    text: str
    weight: float
    round: _Bracket | None
    square: _Bracket | None


def parse_attention(text: str) -> list[Piece]:
    """The pieces of ``text`` in order, never empty; neighbours of equal weight are joined.  Linear time, never fails.

    >>> parse_attention("a (red:1.3) cat")
    [Piece(text='a ', weight=1.0), Piece(text='red', weight=1.3), Piece(text=' cat', weight=1.0)]
    """
    weighted = [Piece(piece.text, _weight(piece)) for piece in _scan(text)]
    runs = groupby(weighted, key=lambda piece: piece.weight)
    return [Piece("".join(piece.text for piece in run), weight) for weight, run in runs] or [Piece("", 1.0)]


def _scan(text: str) -> list[_Scanned]:
    """Pieces with the brackets that stand around each of them."""
    pieces: list[_Scanned] = []
    brackets: list[_Bracket] = []
    round_, square = None, None
    for position, token in enumerate(_TOKEN.finditer(text)):
        bracket, weight = token["open"] or token["close"], token["weight"]
        if token["open"] == "(":
            brackets.append(round_ := _Bracket(round_, ROUND_FACTOR))
        elif token["open"] == "[":
            brackets.append(square := _Bracket(square, SQUARE_FACTOR))
        elif round_ and (weight is not None or bracket == ")"):
            round_.factor = ROUND_FACTOR if weight is None else float(weight)
            round_.closed = position
            round_ = round_.parent
        elif square and bracket == "]":
            square.closed = position
            square = square.parent
        elif token["escaped"] is not None:
            pieces.append(_Scanned(token["escaped"], 1.0, round_, square))
        else:
            for index, part in enumerate(_split_at_breaks(token[0])):
                if index:
                    pieces.append(_Scanned(*BREAK, round_, square))
                pieces.append(_Scanned(part, 1.0, round_, square))
    for opened in brackets:  # parents stand before their children
        opened.outer = opened.factor * (opened.parent.outer if opened.parent else 1.0)
    return pieces


def _split_at_breaks(text: str) -> list[str]:
    """The texts between the words BREAK, without the white space beside those words."""
    parts = _BREAK_WORD.split(text)
    last = len(parts) - 1
    parts = [part.lstrip() if index > 0 else part for index, part in enumerate(parts)]
    return [part.rstrip() if index < last else part for index, part in enumerate(parts)]


def _weight(piece: _Scanned) -> float:
    """The product of the factors around ``piece`` in the order in which the brackets were closed."""
    weight, inner_round, inner_square = piece.weight, piece.round, piece.square
    for _ in range(_EXACT_DEPTH):
        if inner_round and (inner_square is None or inner_round.closed <= inner_square.closed):
            weight *= inner_round.factor
            inner_round = inner_round.parent
        elif inner_square:
            weight *= inner_square.factor
            inner_square = inner_square.parent
        else:
            break
    for rest in (inner_round, inner_square):
        weight *= rest.outer if rest else 1.0
    return max(-MAX_WEIGHT, min(MAX_WEIGHT, weight))
