"""Chunks of 77 tokens: what must hold for every prompt, and the cases of AUTOMATIC1111's rules worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.prompt.chunks import CHUNK_TOKENS, chunks, count_tokens
from webui.prompt.syntax import BREAK, parse_attention
from webui.prompt.tokenizer import BOS, COMMA, EOS, Tokenizer

CAT, DOG = 2368, 1929


def inner(tokens: tuple[int, ...]) -> list[int]:
    """The prompt's own tokens of a chunk."""
    return [token for token in tokens[1:-1] if token != EOS]


def test_an_empty_prompt_is_one_chunk_of_padding(tokenizer: Tokenizer) -> None:
    (chunk,) = chunks("", tokenizer)
    assert chunk.tokens == (BOS, *[EOS] * 76)
    assert chunk.weights == (1.0,) * 77
    assert count_tokens("", tokenizer) == (0, 75)


def test_weights_belong_to_their_tokens(tokenizer: Tokenizer) -> None:
    (chunk,) = chunks("cat (dog:1.5) [cat]", tokenizer)
    assert chunk.tokens[:5] == (BOS, CAT, DOG, CAT, EOS)
    assert chunk.weights[:5] == (1.0, 1.0, 1.5, 1 / 1.1, 1.0)


@pytest.mark.parametrize(("words", "made", "limit"), [(75, 1, 75), (76, 2, 150), (151, 3, 225)])
def test_length_is_without_limit(tokenizer: Tokenizer, words: int, made: int, limit: int) -> None:
    text = "cat " * words
    assert len(chunks(text, tokenizer)) == made
    assert count_tokens(text, tokenizer) == (words, limit)


def test_break_fills_the_chunk(tokenizer: Tokenizer) -> None:
    first, second = chunks("cat BREAK dog", tokenizer)
    assert (inner(first.tokens), inner(second.tokens)) == ([CAT], [DOG])
    assert count_tokens("cat BREAK dog", tokenizer) == (76, 150)
    assert [inner(chunk.tokens) for chunk in chunks("BREAK cat", tokenizer)] == [[], [CAT]]
    assert [inner(chunk.tokens) for chunk in chunks("cat BREAK", tokenizer)] == [[CAT]]


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (54, 75),  # the comma is token 54 of 0..74, 21 before the end: too far away
        (55, 56),  # 20 before the end: the words after it move on
        (73, 74),
        (74, 75),  # it is the last token: nothing to move
    ],
)
def test_a_comma_near_the_end_ends_the_chunk(tokenizer: Tokenizer, before: int, kept: int) -> None:
    text = "cat " * before + ", " + "dog " * 40
    first, second = chunks(text, tokenizer)
    assert len(inner(first.tokens)) == kept
    assert inner(first.tokens) + inner(second.tokens) == [CAT] * before + [COMMA] + [DOG] * 40


def test_a_comma_that_runs_over_starts_the_next_chunk(tokenizer: Tokenizer) -> None:
    first, second = chunks("cat " * 60 + ", " + "cat " * 14 + ", dog", tokenizer)
    assert len(inner(first.tokens)) == 75
    assert inner(second.tokens) == [COMMA, DOG]


words = st.lists(st.sampled_from(["cat", ",", "(dog:1.2)", "BREAK", "[a", "misspeling", "😀"]), max_size=200)


@given(words.map(" ".join))
def test_every_token_is_kept_once_and_in_order(tokenizer: Tokenizer, text: str) -> None:
    pieces = [piece for piece in parse_attention(text) if piece != BREAK]
    expected = [(token, piece.weight) for piece in pieces for token in tokenizer.tokenise(piece.text)]
    made = chunks(text, tokenizer)
    assert all(len(chunk.tokens) == len(chunk.weights) == CHUNK_TOKENS + 2 for chunk in made)
    assert all(chunk.tokens[0] == BOS and chunk.tokens[-1] == EOS for chunk in made)
    pairs = [pair for chunk in made for pair in zip(chunk.tokens, chunk.weights, strict=True)]
    assert [pair for pair in pairs if pair[0] not in (BOS, EOS)] == expected
    used, limit = count_tokens(text, tokenizer)
    assert used <= limit == max(1, -(-used // 75)) * 75
    assert limit == 75 * len(made)
