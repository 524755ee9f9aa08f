"""weighted pieces -> chunks of 77 tokens, as many as the prompt needs.

A chunk is BOS, 75 tokens, EOS; what is left of the 75 is filled with EOS.  The rules are those of AUTOMATIC1111
(``modules/sd_hijack_clip.py``, ``tokenize_line``, ``comma_padding_backtrack`` 20), except that an embedding which moves
behind a comma takes its vectors along.  Called by ``conditioning`` for the network and by the page for the token
counter.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from webui.prompt.comments import without_comments
from webui.prompt.compose import parts
from webui.prompt.extra_networks import extract
from webui.prompt.schedule import Timeline, schedule
from webui.prompt.syntax import BREAK, Piece, parse_attention
from webui.prompt.tokenizer import BOS, COMMA, EOS, Tokenizer
from webui.request import Emphasis

CHUNK_TOKENS = 75
"""Tokens of the prompt in one chunk."""
COMMA_REACH = 20
"""A chunk that runs over within so many tokens after a comma ends at the comma instead."""


COUNTED_STEPS = 20
"""Steps over which a prompt is counted where nobody says how many."""

PLACEHOLDER = 0
"""The token that stands where an embedding's vectors go."""


@dataclass(frozen=True)
class Word:
    """An embedding's name as the tokens that a prompt spells it with, and how many vectors take their place."""

    name: str
    tokens: tuple[int, ...]
    vectors: int


class Placed(NamedTuple):
    """An embedding in a chunk: the place of its first vector among the 77, and its name."""

    position: int
    name: str


@dataclass(frozen=True)
class Chunk:
    """What the text encoder reads at once: 77 token ids and the weight of each, 1 for BOS, EOS and padding.

    ``placed`` are the embeddings; their tokens are placeholders.
    """

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    placed: tuple[Placed, ...] = ()


@dataclass
class _Filling:
    """Finished chunks and the one being filled; ``comma`` is the place of its last comma, ``used`` counts tokens."""

    chunks: list[Chunk] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    placed: list[Placed] = field(default_factory=list)
    comma: int | None = None
    used: int = 0
    comma_reach: int = COMMA_REACH

    @property
    def is_full(self) -> bool:
        return len(self.tokens) == CHUNK_TOKENS

    def add(self, token: int, weight: float, word: Word | None = None) -> None:
        """Add a token, or the word that begins with it."""
        if token == COMMA:
            self.comma = len(self.tokens)
        elif self.is_full and self.comma is not None and CHUNK_TOKENS - self.comma <= self.comma_reach:
            self._move_behind_comma(self.comma + 1)
        if len(self.tokens) + (word.vectors if word else 1) > CHUNK_TOKENS:
            self.close()
        if word:
            self.placed.append(Placed(len(self.tokens) + 1, word.name))
        added = [PLACEHOLDER] * word.vectors if word else [token]
        self.tokens += added
        self.weights += [weight] * len(added)

    def close(self) -> None:
        missing = CHUNK_TOKENS - len(self.tokens)
        tokens = (BOS, *self.tokens, *[EOS] * (missing + 1))
        weights = (1.0, *self.weights, *[1.0] * (missing + 1))
        self.chunks.append(Chunk(tokens, weights, tuple(self.placed)))
        self.tokens, self.weights, self.placed, self.comma = [], [], [], None
        self.used += CHUNK_TOKENS

    def finish(self) -> None:
        """Close the last chunk; its padding does not count as used."""
        if self.tokens or not self.chunks:
            padding = CHUNK_TOKENS - len(self.tokens)
            self.close()
            self.used -= padding

    def _move_behind_comma(self, start: int) -> None:
        tokens, weights = self.tokens[start:], self.weights[start:]
        placed = [Placed(place - start, name) for place, name in self.placed if place > start]
        del self.tokens[start:], self.weights[start:]
        self.placed = [place for place in self.placed if place.position <= start]
        self.close()
        self.tokens, self.weights, self.placed = tokens, weights, placed


def _fill(
    text: str, tokenizer: Tokenizer, words: Sequence[Word], emphasis: Emphasis, comma_reach: int = COMMA_REACH
) -> _Filling:
    filling = _Filling(comma_reach=comma_reach)
    by_token = _by_first_token(words)
    for piece in _pieces(text, emphasis):
        if piece == BREAK:
            filling.close()
            continue
        for token, word in _spelled(tokenizer.tokenise(piece.text), by_token):
            filling.add(token, piece.weight, word)
    filling.finish()
    return filling


def _pieces(text: str, emphasis: Emphasis) -> list[Piece]:
    """The weighted pieces; one as it stands, BREAK and all, where emphasis is not read."""
    return [Piece(text, 1.0)] if emphasis is Emphasis.NONE else parse_attention(text)


def _by_first_token(words: Iterable[Word]) -> dict[int, list[Word]]:
    """The words that begin with a token, the longest first."""
    found: dict[int, list[Word]] = {}
    for word in sorted(words, key=lambda word: -len(word.tokens)):
        if word.tokens:
            found.setdefault(word.tokens[0], []).append(word)
    return found


def _spelled(tokens: list[int], words: dict[int, list[Word]]) -> Iterator[tuple[int, Word | None]]:
    """Tokens one by one; where one begins a word, the word stands for all of its tokens."""
    position = 0
    while position < len(tokens):
        token = tokens[position]
        candidates = words.get(token, ())
        here = (word for word in candidates if tuple(tokens[position : position + len(word.tokens)]) == word.tokens)
        word = next(here, None)
        yield token, word
        position += len(word.tokens) if word else 1


def chunks(
    text: str,
    tokenizer: Tokenizer,
    words: Sequence[Word] = (),
    emphasis: Emphasis = Emphasis.ORIGINAL,
    comma_reach: int = COMMA_REACH,
) -> list[Chunk]:
    """The prompt as chunks; at least one, which is only padding for an empty prompt.

    Where the text spells one of ``words`` (the longest that fits), that many placeholders stand, never in two chunks.
    A chunk that runs over within ``comma_reach`` tokens after a comma ends there; 0: never.
    """
    return _fill(text, tokenizer, words, emphasis, comma_reach).chunks


def texts(prompt: str, timeline: Timeline) -> tuple[str, ...]:
    """All that a prompt without tags and comments says in some part and at some step, each text once, in its order."""
    said = (span.text for part in parts(prompt) for span in schedule(part.text, timeline))
    return tuple(dict.fromkeys(said))


def words_in(text: str, tokenizer: Tokenizer, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that the text spells, in its order, upper and lower case alike; time is mostly per match."""
    pieces = [piece.text for piece in parse_attention(text)]
    plain = [_plain(piece) for piece in pieces]
    near = [name for name in names if any(_plain(name) in piece for piece in plain)]
    by_token = _by_first_token(Word(name, tuple(tokenizer.tokenise(name)), 1) for name in near)
    found = (word.name for piece in pieces for _, word in _spelled(tokenizer.tokenise(piece), by_token) if word)
    return list(dict.fromkeys(found))


def _plain(text: str) -> str:
    """What texts of equal tokens have in common."""
    return "".join(unicodedata.normalize("NFC", text).casefold().split())


def count_tokens(
    text: str, tokenizer: Tokenizer, words: Sequence[Word] = (), steps: int = COUNTED_STEPS
) -> tuple[int, int]:
    """Tokens used, and how many fit before another chunk is needed: 75, 150, ...

    As AUTOMATIC1111's counter: chunks ended early by BREAK or at a comma count as 75, comments and ``<lora:...>`` tags
    as 0, and of all that the prompt says at some step, or in some part of an AND, the longest counts.
    """
    said = texts(extract(without_comments(text)).text, Timeline(steps))
    used = max(_fill(one, tokenizer, words, Emphasis.ORIGINAL).used for one in said)
    return used, max(1, -(-used // CHUNK_TOKENS)) * CHUNK_TOKENS
