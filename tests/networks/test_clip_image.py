from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from oracles import built, relative_error, shapes_of

from webui.errors import CheckpointError
from webui.networks.clip_image import ClipImageConfig, ClipImageEncoder

TOY = ClipImageConfig(width=48, layers=3, heads=4, mlp_width=80, image_size=32, patch=8, projection=24)
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def toy() -> ClipImageEncoder:
    return built(lambda: ClipImageEncoder(TOY))


def transformers_image_encoder(ours: ClipImageEncoder) -> Any:
    """transformers' network with the same weights; a name too many or too few raises."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = ours.config
    theirs = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            projection_dim=config.projection,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            image_size=config.image_size,
            patch_size=config.patch,
            hidden_act="quick_gelu",
        )
    )
    theirs.load_state_dict(ours.state_dict())
    return theirs.eval()


def pictures() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_equals_transformers(toy: ClipImageEncoder) -> None:
    with torch.no_grad():
        expected = transformers_image_encoder(toy)(pixel_values=pictures()).image_embeds
        assert relative_error(toy(pictures()), expected) < TOLERANCE


def test_gradients_equal_transformers(toy: ClipImageEncoder) -> None:
    theirs = transformers_image_encoder(toy)
    theirs(pixel_values=pictures()).image_embeds.square().sum().backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    names, parameters = zip(*toy.named_parameters(), strict=True)
    found = dict(zip(names, torch.autograd.grad(toy(pictures()).square().sum(), parameters), strict=True))
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    assert set(found) == set(expected)
    for name, gradient in found.items():
        assert (gradient - expected[name]).abs().max().item() < TOLERANCE * largest, name


@pytest.mark.parametrize("config", [ClipImageConfig(), TOY])
def test_config_is_read_off_the_shapes(config: ClipImageConfig) -> None:
    with torch.device("meta"):
        shapes = shapes_of(ClipImageEncoder(config))
    assert ClipImageConfig.from_shapes(shapes, heads=config.heads) == config
    assert ClipImageConfig.from_shapes(shapes) == replace(config, heads=max(1, config.width // 64))


def test_impossible_shapes_are_refused(toy: ClipImageEncoder) -> None:
    shapes = shapes_of(toy)
    with pytest.raises(CheckpointError, match="5 heads"):
        ClipImageConfig.from_shapes(shapes, heads=5)
    with pytest.raises(CheckpointError, match="has 16"):
        ClipImageConfig.from_shapes(shapes | {"vision_model.embeddings.position_embedding.weight": (16, 48)})
    del shapes["visual_projection.weight"]
    with pytest.raises(CheckpointError, match="visual_projection"):
        ClipImageConfig.from_shapes(shapes)
