"""text -> the prompts that ``AND`` joins, each with its weight: ``a cat AND a dog :0.7``.

Liu et al. 2022 (arXiv:2206.01714, equation 11): every prompt pulls the picture its own way, and the pulls add up.
Rules of AUTOMATIC1111 (``modules/prompt_parser.py``, ``get_multicond_prompt_list``): ``AND`` is a word in capitals,
wherever it stands; the weight is a number behind the last colon, 1 without one, also for a prompt that is joined to
nothing.
Only the prompt is read like this; in a negative prompt AND is a word like any other.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from webui.prompt.syntax import MAX_WEIGHT

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"\s*([-+]?(?:\d+\.?|\d*\.\d+))")


class Part(NamedTuple):
    """One of the prompts, and how strongly it pulls."""

    text: str
    weight: float


def parts(text: str) -> tuple[Part, ...]:
    """The prompts in order, at least one, without white space at their ends.  Linear time, never fails.

    >>> parts("a cat :1.2 AND a dog")
    (Part(text='a cat', weight=1.2), Part(text=' a dog', weight=1.0))
    """
    return tuple(map(_part, _AND.split(text)))


def _part(text: str) -> Part:
    text = text.rstrip()
    before, colon, after = text.rpartition(":")
    weight = _WEIGHT.fullmatch(after) if colon else None
    if weight is None:
        return Part(text, 1.0)
    return Part(before.rstrip(), max(-MAX_WEIGHT, min(MAX_WEIGHT, float(weight[1]))))
