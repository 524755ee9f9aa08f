"""weighted pieces -> chunks of 77 tokens, as many as the prompt needs.

A chunk is BOS, 75 tokens, EOS; what is left of the 75 is filled with EOS.  The rules are those of AUTOMATIC1111
(``modules/sd_hijack_clip.py``, ``tokenize_line``, ``comma_padding_backtrack`` 20).  Called by ``conditioning`` for the
network and by the page for the token counter.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from webui.prompt.syntax import BREAK, parse_attention
from webui.prompt.tokenizer import BOS, COMMA, EOS, Tokenizer

CHUNK_TOKENS = 75
"""Tokens of the prompt in one chunk."""
COMMA_REACH = 20
"""A chunk that runs over within so many tokens after a comma ends at the comma instead."""


@dataclass(frozen=True)
class Chunk:
    """What the text encoder reads at once: 77 token ids and the weight of each, 1 for BOS, EOS and padding."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass
class _Filling:
    """Finished chunks and the one being filled; ``comma`` is the place of its last comma, ``used`` counts tokens."""

    chunks: list[Chunk] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    comma: int | None = None
    used: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.tokens) == CHUNK_TOKENS

    def add(self, token: int, weight: float) -> None:
        if token == COMMA:
            self.comma = len(self.tokens)
        elif self.is_full and self.comma is not None and CHUNK_TOKENS - self.comma <= COMMA_REACH:
            self._move_behind_comma(self.comma + 1)
        if self.is_full:
            self.close()
        self.tokens.append(token)
        self.weights.append(weight)

    def close(self) -> None:
        missing = CHUNK_TOKENS - len(self.tokens)
        self.chunks.append(
            Chunk((BOS, *self.tokens, *[EOS] * (missing + 1)), (1.0, *self.weights, *[1.0] * (missing + 1)))
        )
        self.tokens, self.weights, self.comma = [], [], None
        self.used += CHUNK_TOKENS

    def finish(self) -> None:
        """Close the last chunk; its padding does not count as used."""
        if self.tokens or not self.chunks:
            padding = CHUNK_TOKENS - len(self.tokens)
            self.close()
            self.used -= padding

    def _move_behind_comma(self, start: int) -> None:
        tokens, weights = self.tokens[start:], self.weights[start:]
        del self.tokens[start:], self.weights[start:]
        self.close()
        self.tokens, self.weights = tokens, weights


def _fill(text: str, tokenizer: Tokenizer) -> _Filling:
    filling = _Filling()
    for piece in parse_attention(text):
        if piece == BREAK:
            filling.close()
            continue
        for token in tokenizer.tokenise(piece.text):
            filling.add(token, piece.weight)
    filling.finish()
    return filling


def chunks(text: str, tokenizer: Tokenizer) -> list[Chunk]:
    """The prompt as chunks; at least one, which is only padding for an empty prompt."""
    return _fill(text, tokenizer).chunks


def count_tokens(text: str, tokenizer: Tokenizer) -> tuple[int, int]:
    """Tokens used, and how many fit before another chunk is needed: 75, 150, ...

    As AUTOMATIC1111's counter: chunks ended early by BREAK or at a comma count as 75.
    """
    used = _fill(text, tokenizer).used
    return used, max(1, -(-used // CHUNK_TOKENS)) * CHUNK_TOKENS
