"""chunks -> tokens as people read them, and the words that they make.  No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from webui.prompt.chunks import Chunk
from webui.prompt.tokenizer import BOS, EOS, Tokenizer

CHUNK = 77


def plain_chunk(chunk: Chunk, tokenizer: Tokenizer) -> dict[str, Any]:
    """A chunk as plain values: ids, what each stands for, whether it ends a word, and its weight.

    The padding is left out; ``length`` counts the tokens between BOS and EOS.  An embedding's vectors are named.
    """
    used = _used(chunk)
    tokens, weights = chunk.tokens[1 : 1 + used], chunk.weights[1 : 1 + used]
    spelled = [tokenizer.spelled(token) for token in tokens]
    starts = {place.position - 1: place.name for place in chunk.placed}
    texts, ends = [text for text, _ in spelled], [end for _, end in spelled]
    name = ""
    for place, token in enumerate(tokens):
        name = starts.get(place, name if token == 0 else "")
        if name:
            texts[place] = name if place in starts else ""
            ends[place] = place + 1 == used or tokens[place + 1] != 0 or place + 1 in starts
    return {
        "length": used,
        "ids": list(tokens),
        "texts": texts,
        "ends": ends,
        "weights": [round(w, 4) for w in weights],
    }


def _used(chunk: Chunk) -> int:
    """How many tokens stand before the first EOS."""
    assert chunk.tokens[0] == BOS
    return chunk.tokens.index(EOS, 1) - 1


@dataclass(frozen=True)
class Word:
    """A word of a prompt: its text, its weight, and the places of its tokens in the context (BOS is 0)."""

    text: str
    weight: float
    places: tuple[int, ...]


def words(chunks: Sequence[Mapping[str, Any]]) -> list[Word]:
    """The words of a prompt's plain chunks in their order; punctuation alone is none."""
    found: list[Word] = []
    for number, chunk in enumerate(chunks):
        text, places, weight = "", [], 1.0
        for place, (part, ends) in enumerate(zip(chunk["texts"], chunk["ends"], strict=True)):
            text += part
            places.append(number * CHUNK + 1 + place)
            weight = chunk["weights"][place]
            if ends or place + 1 == chunk["length"]:
                if any(letter.isalnum() or ord(letter) > 127 for letter in text):
                    found.append(Word(text, weight, tuple(places)))
                text, places = "", []
    return found
