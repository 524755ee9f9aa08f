"""A model is taught with the context that it meets when it draws: all 77 places, unless asked to be quick."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import TEXT
from torch import Generator
from training_cases import Begin

from webui.networks.clip import ClipTextEncoder
from webui.prompt.tokenizer import BOS, EOS
from webui.training.captions import Captions, context
from webui.training.loop import generator
from webui.training.request import Noise

ROWS = st.lists(st.lists(st.integers(0, BOS - 1), max_size=90), min_size=1, max_size=5)


@given(ROWS, st.integers(0, 2**32))
def test_captions_are_read_at_all_places(rows: list[list[int]], seed: int) -> None:
    found = Captions.of_tokens(rows).batch(range(len(rows)), 0.0, Generator().manual_seed(seed))
    expected = [[BOS, *row[:75], *[EOS] * (76 - len(row[:75]))] for row in rows]
    assert found.tolist() == expected


@given(ROWS, st.integers(0, 2**32))
def test_short_captions_are_cut_behind_the_end_of_the_longest(rows: list[list[int]], seed: int) -> None:
    captions, items = Captions.of_tokens(rows), range(len(rows))
    whole = captions.batch(items, 0.3, Generator().manual_seed(seed))
    short = captions.batch(items, 0.3, Generator().manual_seed(seed), short=True)
    assert torch.equal(short, whole[:, : short.shape[1]])
    assert (whole[:, short.shape[1] :] == EOS).all() and (short[:, -1] == EOS).all()


def test_short_captions_are_whole_in_about_one_batch_of_eight() -> None:
    captions, random = Captions.of_tokens([[320, 321]]), Generator().manual_seed(0)
    lengths = [captions.batch([0], 0.0, random, short=True).shape[1] for _ in range(800)]
    assert set(lengths) == {8, 77}
    assert abs(lengths.count(77) - 100) < 5 * (800 * 1 / 8 * 7 / 8) ** 0.5  # five standard deviations


def test_a_frozen_encoders_context_takes_no_gradients() -> None:
    encoder, tokens = ClipTextEncoder(TEXT), torch.tensor([[BOS, 320, EOS]])
    assert context(encoder, tokens).requires_grad
    assert not context(encoder, tokens, learns=False).requires_grad
    with torch.no_grad():
        assert not context(encoder, tokens).requires_grad


@pytest.mark.parametrize("kind", ["checkpoint", "lora", "embedding"])
def test_the_request_says_how_far_a_kind_reads(kind: str, begin: Begin) -> None:
    assert set(read_lengths(begin(kind))) == {77}
    lengths = read_lengths(begin(kind, noise=Noise(short_captions=True)))
    assert min(lengths) < 77


def read_lengths(task: Any, steps: int = 6) -> list[int]:
    """How many places the UNet reads in the first steps."""
    lengths: list[int] = []
    hook = task.model.unet.register_forward_pre_hook(lambda module, given: lengths.append(given[2].shape[1]))
    with torch.no_grad():
        for step in range(steps):
            task.loss((0, 1), step, generator(0, step, 0))
    hook.remove()
    return lengths
