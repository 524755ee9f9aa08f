"""Weights in prompts as NovelAI and InvokeAI write them -> ``(words:1.1)``.

Both take linear time; brackets that do not fit stay what they are: text.
"""

from __future__ import annotations

import re

_NOVELAI = re.compile(r"\\?[{}\[\]()]|-?[0-9]+(?:\.[0-9]+)?::|::")
_STEP = 1.05
"""What a pair of NovelAI's brackets multiplies or divides by."""
_DEEPEST = 60


def from_novelai(text: str) -> str:
    """A prompt of NovelAI: ``{}`` times 1.05, ``[]`` divided by it, ``1.2::words::``; round brackets are text there.

    >>> from_novelai("a {{cat}}, [dog], 1.5::red::, (b)")
    'a (cat:1.1025), (dog:0.9524), (red:1.5), \\\\(b\\\\)'
    """
    runs: list[tuple[str, float]] = []
    up = down = 0
    factor, position = 1.0, 0

    def add(piece: str) -> None:
        if piece:
            runs.append((piece, factor * _STEP ** (up - down)))

    for match in _NOVELAI.finditer(text):
        add(text[position : match.start()])
        position, mark = match.end(), match[0]
        if mark[-1] in "()":
            add(mark if mark.startswith("\\") else "\\" + mark)
        elif mark.startswith("\\"):
            add(mark)
        elif mark == "::":
            factor = 1.0
        elif mark.endswith("::"):
            factor = max(-20.0, min(20.0, float(mark[:-2])))
        elif mark in "{}":
            up = max(0, min(_DEEPEST, up + (1 if mark == "{" else -1)))
        else:
            down = max(0, min(_DEEPEST, down + (1 if mark == "[" else -1)))
    add(text[position:])
    return _weighted(runs)


def _weighted(runs: list[tuple[str, float]]) -> str:
    """Pieces of text with their weights as one prompt, equal neighbours joined."""
    joined: list[tuple[list[str], float]] = []
    for piece, weight in runs:
        if joined and joined[-1][1] == weight:
            joined[-1][0].append(piece)
        else:
            joined.append(([piece], weight))
    return "".join(_bracketed("".join(pieces), weight) for pieces, weight in joined)


def _bracketed(text: str, weight: float) -> str:
    if abs(weight - 1) < 5e-5 or not text.strip():
        return text
    return f"({text}:{weight:.4f}".rstrip("0").rstrip(".") + ")"


_INVOKE = re.compile(r"\\?[()]|[^\s(),\\]+")
"""A bracket, or a word with the marks behind it."""
_AFTER = re.compile(r"([+]{1,10}|-{1,10}|[0-9]{0,3}\.?[0-9]{1,6})(?![\w.])")
_MOST_MARKS = 10


def from_invoke(text: str) -> str:
    """A prompt of InvokeAI's compel: ``word++`` times 1.1 for each +, ``(words)--`` times 0.9, ``(words)1.2``.

    >>> from_invoke("a cat++ and (a red dog)-- on (grass)1.3")
    'a (cat:1.21) and (a red dog:0.81) on (grass:1.3)'
    """
    pieces: list[str] = []
    opened: list[int] = []
    position = 0
    while match := _INVOKE.search(text, position):
        pieces.append(text[position : match.start()])
        position, mark = match.end(), match[0]
        if mark == "(":
            opened.append(len(pieces))
            pieces.append("(")
        elif mark == ")" and opened:
            start, after = opened.pop(), _AFTER.match(text, position)
            if after:
                pieces.append(f":{_number(_strength(after[1]))})")
                position = after.end()
            else:
                pieces[start] = ""  # a pair without a weight only groups
        elif mark in ("(", ")") or mark.startswith("\\"):
            pieces.append(mark)
        else:
            pieces.append(_marked(mark))
    pieces.append(text[position:])
    for start in opened:
        pieces[start] = "\\("
    return "".join(pieces)


def _marked(word: str) -> str:
    """A word with its weight, where marks behind it say one."""
    bare = word.rstrip("+") if word.endswith("+") else word.rstrip("-") if word.endswith("--") else word
    marks = word[len(bare) :]
    if not bare or not marks or len(marks) > _MOST_MARKS:
        return word
    return f"({bare}:{_number(_strength(marks))})"


def _strength(mark: str) -> float:
    if mark[0] == "+":
        return float(1.1 ** len(mark))
    return float(0.9 ** len(mark)) if mark[0] == "-" else min(20.0, float(mark))


def _number(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")
