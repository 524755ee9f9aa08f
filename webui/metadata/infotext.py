"""The ``parameters`` text that AUTOMATIC1111 writes into pictures: its layout, taken apart and put together.

    PROMPT
    Negative prompt: NEGATIVE
    Steps: 20, Sampler: Euler, Schedule type: Automatic, CFG scale: 7.0, Seed: 1, Size: 512x512, ...

Layout, order of the keys, quoting and the rules of reading are those of version 1.10 (``modules/processing.py``
``create_infotext``, ``modules/infotext_utils.py``).  A prompt that this layout cannot carry (with a line that looks
like the layout) is written a second time, quoted, under ``Prompt verbatim`` or ``Negative prompt verbatim``, which
:func:`parse` prefers and other tools leave alone.

``writing`` says which pairs a request has, ``reading`` what pairs mean.  Pictures are input from strangers: reading
takes linear time and never fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

NEGATIVE = "Negative prompt:"
PROMPT_VERBATIM = "Prompt verbatim"
NEGATIVE_VERBATIM = "Negative prompt verbatim"
LORA_HASHES = "Lora hashes"
EMBEDDING_HASHES = "TI hashes"
SHORT_HASH = 10
"""Digits of a model's SHA-256 that the text holds."""
FEWEST_PAIRS = 3
"""A last line with fewer pairs belongs to the prompt."""


@dataclass(frozen=True)
class Infotext:
    """A text as read: ``fields`` are the pairs of its last line, in their order, unquoted."""

    prompt: str
    negative_prompt: str
    fields: dict[str, str]


def layout(prompt: str, negative_prompt: str, pairs: Mapping[str, str]) -> str:
    """The text of these prompts and pairs, in their order; :func:`parse` gives the same ones back.

    A prompt that the layout changes, spaces at the ends of its lines apart, is among the pairs as well, before the last
    one.
    """
    *others, last = pairs.items()
    plain = parse(_laid_out(prompt, negative_prompt, pairs))
    verbatim = {}
    if trimmed(plain.prompt) != trimmed(prompt):
        verbatim[PROMPT_VERBATIM] = prompt
    if trimmed(plain.negative_prompt) != trimmed(negative_prompt):
        verbatim[NEGATIVE_VERBATIM] = negative_prompt
    return _laid_out(prompt, negative_prompt, dict([*others, *verbatim.items(), last]))


def trimmed(prompt: str) -> str:
    """A prompt without spaces at the ends of its lines and empty lines at its own, which say nothing to any encoder."""
    return "\n".join(map(str.strip, prompt.split("\n"))).strip("\n")


def _laid_out(prompt: str, negative_prompt: str, pairs: Mapping[str, str]) -> str:
    negative = f"\n{NEGATIVE} {negative_prompt}" if negative_prompt else ""
    line = ", ".join(f"{key}: {quote(value)}" for key, value in pairs.items())
    return f"{prompt}{negative}\n{line}".strip()


def quote(value: str) -> str:
    """``value``, as a JSON string where it would not be read back as it is."""
    plain = not re.search(r'[,:\x00-\x1f]|^"|^$', value) and value == value.strip()
    return value if plain else json.dumps(value, ensure_ascii=False)


def unquote(value: str) -> str:
    """The text that :func:`quote` was given; what is not a JSON string stays as it is."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value


def parse(text: str) -> Infotext:
    """The prompts and pairs of a text; any text has some reading, if only that all of it is prompt."""
    *lines, last = text.strip().split("\n")
    pairs = pairs_of(last)
    if len(pairs) < FEWEST_PAIRS:
        lines, pairs = [*lines, last], []
    prompt, negative = _prompts(lines)
    fields = dict(pairs)
    prompt = fields.pop(PROMPT_VERBATIM, prompt)
    negative = fields.pop(NEGATIVE_VERBATIM, negative)
    return Infotext(prompt, negative, fields)


def pairs_of(line: str) -> list[tuple[str, str]]:
    """The pairs of ``Key: value, Key: value``, unquoted; what is none is left out."""
    return list(_pairs_in(line))


def _prompts(lines: list[str]) -> tuple[str, str]:
    """Prompt and negative prompt: stripped lines, the empty ones at the beginning left out."""
    prompt: list[str] = []
    negative: list[str] = []
    current = prompt
    for line in map(str.strip, lines):
        if line.startswith(NEGATIVE):
            current, line = negative, line[len(NEGATIVE) :].strip()
        if line or current:
            current.append(line)
    return "\n".join(prompt), "\n".join(negative)


# AUTOMATIC1111 searches pairs with \s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$) from every position: quadratic
# time on a long line without colons.  These are the same pairs, found run by run.
_KEY_CHARACTERS = re.compile(r"[\w \-/]+")
_WORD_CHARACTER = re.compile(r"\w")
_QUOTED = re.compile(r'("(?:\\.|[^\\"])+")(?:,|$)')
_SPACE = re.compile(r"\s*")


def _pairs_in(line: str) -> Iterator[tuple[str, str]]:
    position = 0
    while run := _KEY_CHARACTERS.search(line, position):
        position = run.end()
        if not line.startswith(":", position):
            continue
        start = _WORD_CHARACTER.search(line, run.start(), run.end() - 1)
        position += 1
        if start:
            value, position = _value_at(line, position)
            yield line[start.start() : run.end()], value


def _value_at(line: str, position: int) -> tuple[str, int]:
    """The value from ``position`` on, and where the next pair may begin."""
    space = _SPACE.match(line, position)
    position = space.end() if space else position
    if quoted := _QUOTED.match(line, position):
        return unquote(quoted[1]), quoted.end()
    comma = line.find(",", position)
    end = len(line) if comma < 0 else comma
    return unquote(line[position:end].rstrip()), end + 1
