"""The tokenizer against transformers' CLIPTokenizer and published ids."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from importlib import resources

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from webui.prompt import tokenizer as module
from webui.prompt.tokenizer import BOS, COMMA, EOS, Tokenizer

Encode = Callable[[str], list[int]]


@pytest.fixture(scope="module")
def oracle() -> Encode:
    transformers = pytest.importorskip("transformers")
    packed = resources.files("webui.prompt").joinpath("clip_bpe", "merges.txt.gz").read_bytes()
    merges = [tuple(line.split(" ")) for line in gzip.decompress(packed).decode().splitlines()]
    vocabulary = {token: index for index, token in enumerate(module._tokens(merges))}
    clip = transformers.CLIPTokenizer(vocab=vocabulary, merges=merges)
    return lambda text: clip(text, add_special_tokens=False)["input_ids"]


def test_the_vocabulary_is_that_of_openai(tokenizer: Tokenizer) -> None:
    """Digest of the tokens in the order of the ids, as in the ``vocab.json`` of openai/clip-vit-large-patch14."""
    tokens = module._tokens(module._read_merges())
    assert len(tokens) == 49_408
    assert hashlib.sha256("\n".join(tokens).encode()).hexdigest() == DIGEST
    assert tokens[BOS] == "<|startoftext|>" and tokens[EOS] == "<|endoftext|>" and tokens[COMMA] == ",</w>"


DIGEST = "7cccc44d334555d1ff3c0ac5f0246b428fab2918383e77ee745cf30d41010b78"


def test_published_ids(tokenizer: Tokenizer) -> None:
    """The example of transformers' documentation of CLIPTextModel, without begin and end."""
    assert tokenizer.tokenise("a photo of a cat") == [320, 1125, 539, 320, 2368]


@given(text=st.one_of(st.text(), st.text(st.sampled_from("aAéÉ 'stre1２\t\n\u3000,.!😀👩\u200d猫犬İßﬁ<|>"))))
@example(text="<|endoftext|> <|STARTOFTEXT|>")
@example(text="It's we'll 'S  \u00a0 e\u0301 Ａ １２３")
@example(text="猫と犬 👩‍👩‍👧 naïve Straße")
@example(text="a" * 5000)
def test_ids_are_those_of_transformers(tokenizer: Tokenizer, oracle: Encode, text: str) -> None:
    assert tokenizer.tokenise(text) == oracle(text)


def test_half_a_surrogate_pair_is_a_question_mark(tokenizer: Tokenizer) -> None:
    assert tokenizer.tokenise("a\ud83d b") == tokenizer.tokenise("a? b")


@pytest.mark.parametrize("text", ["a red apple", "naïve café, 2 cats' pics", "日本 🙂"])
def test_spelled_tokens_are_the_text_again(tokenizer: Tokenizer, text: str) -> None:
    spelled = [tokenizer.spelled(token) for token in tokenizer.tokenise(text)]
    letters = "".join(part for part, _ in spelled)
    assert "\ufffd" in letters or letters == "".join(text.split())
    assert spelled[-1][1], "the last token ends a word"
    assert tokenizer.spelled(EOS) == ("<|endoftext|>", True)


def test_a_word_of_several_tokens_ends_once(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.tokenise("blorptasticness")
    assert len(tokens) > 1
    assert [tokenizer.spelled(token)[1] for token in tokens] == [False] * (len(tokens) - 1) + [True]
