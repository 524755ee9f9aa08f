from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oracles import clip, relative_error, shapes_of, transformers_clip
from torch import Tensor

from webui.errors import CheckpointError, RequestError
from webui.networks.clip import ClipTextConfig, ClipTextEncoder, TokenOverrides

TOY = ClipTextConfig(width=48, layers=3, heads=4, mlp_width=80, vocabulary=300)
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def toy() -> ClipTextEncoder:
    return clip(TOY)


def tokens(vocabulary: int, length: int = 77) -> Tensor:
    return torch.randint(0, vocabulary, (2, length), generator=torch.Generator().manual_seed(2))


def check_against_transformers(ours: ClipTextEncoder, skips: tuple[int, ...], length: int) -> None:
    theirs = transformers_clip(ours)
    ids = tokens(ours.config.vocabulary, length)
    expected = theirs(input_ids=ids, output_hidden_states=True)
    final_norm = getattr(theirs, "text_model", theirs).final_layer_norm
    assert relative_error(ours(ids), expected.last_hidden_state) < TOLERANCE
    for skip in skips:
        assert relative_error(ours(ids, clip_skip=skip), final_norm(expected.hidden_states[-skip])) < TOLERANCE


@pytest.mark.parametrize("length", [77, 9])
def test_equals_transformers(toy: ClipTextEncoder, length: int) -> None:
    check_against_transformers(toy, (1, 2, 3), length)


@pytest.mark.slow
def test_equals_transformers_at_the_true_sd15_shapes() -> None:
    check_against_transformers(clip(ClipTextConfig()), (1, 2), 77)


def test_sd15_has_as_many_tensors_as_the_published_model() -> None:
    with torch.device("meta"):
        assert len(ClipTextEncoder(ClipTextConfig()).state_dict()) == 196


@pytest.mark.parametrize("config", [ClipTextConfig(), TOY])
def test_config_is_read_off_the_shapes(config: ClipTextConfig) -> None:
    with torch.device("meta"):
        shapes = shapes_of(ClipTextEncoder(config))
    assert ClipTextConfig.from_shapes(shapes, heads=config.heads) == config
    assert ClipTextConfig.from_shapes(shapes) == replace(config, heads=max(1, config.width // 64))


def test_a_missing_tensor_is_named(toy: ClipTextEncoder) -> None:
    shapes = shapes_of(toy)
    del shapes["text_model.embeddings.token_embedding.weight"]
    with pytest.raises(CheckpointError, match="token_embedding"):
        ClipTextConfig.from_shapes(shapes)


def test_a_token_sees_only_what_came_before(toy: ClipTextEncoder) -> None:
    ids = tokens(TOY.vocabulary)
    changed = ids.clone()
    changed[:, 40:] = (changed[:, 40:] + 1) % TOY.vocabulary
    assert torch.equal(toy(ids)[:, :40], toy(changed)[:, :40])
    assert not torch.equal(toy(ids)[:, 40:], toy(changed)[:, 40:])


@pytest.mark.parametrize("skip", [0, 4])
def test_clip_skip_past_the_layers_is_refused(toy: ClipTextEncoder, skip: int) -> None:
    with pytest.raises(RequestError, match="1 to 3"):
        toy(tokens(TOY.vocabulary), clip_skip=skip)


def test_overriding_vectors_stand_in_for_tokens(toy: ClipTextEncoder) -> None:
    ids = tokens(TOY.vocabulary)
    other = ids.clone()
    other[:, 3:5] = (other[:, 3:5] + 1) % TOY.vocabulary
    mask = torch.zeros(2, 77, dtype=torch.bool)
    mask[:, 3:5] = True
    overrides = TokenOverrides(toy.text_model.embeddings.token_embedding(other), mask)
    plain = toy(ids)
    assert torch.equal(toy(ids, embeddings=overrides), toy(other))
    assert torch.equal(toy(ids), plain)


def test_half_precision_stays_near_fp32(toy: ClipTextEncoder) -> None:
    ids = tokens(TOY.vocabulary)
    found = clip(TOY).to(torch.bfloat16)(ids)
    assert found.dtype is torch.bfloat16
    assert relative_error(found, toy(ids)) < 0.1
