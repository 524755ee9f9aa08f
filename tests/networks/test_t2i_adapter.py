from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from oracles import built, diffusers_unet, relative_error, shapes_of, unet
from torch import Tensor

from webui.errors import CheckpointError
from webui.networks.t2i_adapter import T2IAdapter, T2IAdapterConfig, from_diffusers, openings, to_diffusers
from webui.networks.unet import Openings, UNetConfig

UNET = UNetConfig(
    model_channels=32, time_channels=128, channels=(32, 64, 128, 128), context_channels=24, heads=4, norm_groups=8
)
SMALL = T2IAdapterConfig(channels=UNET.channels)
TOLERANCE = 1e-5


def adapter(config: T2IAdapterConfig = SMALL, seed: int = 2) -> T2IAdapter:
    return built(lambda: T2IAdapter(config), seed)


def diffusers_adapter(ours: T2IAdapter) -> Any:
    from diffusers import T2IAdapter as Theirs

    theirs = Theirs(in_channels=ours.config.hint_channels, channels=list(ours.config.channels), num_res_blocks=2)
    names = to_diffusers(list(ours.state_dict()))
    theirs.load_state_dict({names[name]: tensor for name, tensor in ours.state_dict().items()})
    return theirs.eval()


def hint_of(size: tuple[int, int] = (9, 14), batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, 8 * size[0], 8 * size[1], generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("grey", [False, True])
@torch.no_grad()
def test_equals_diffusers(grey: bool) -> None:
    ours = adapter(replace(SMALL, hint_channels=1 if grey else 3))
    hint = hint_of()
    expected = diffusers_adapter(ours)(hint.mean(1, keepdim=True) if grey else hint)
    found = ours(hint)
    assert len(found) == len(expected) == 4
    for mine, theirs in zip(found, expected, strict=True):
        assert relative_error(mine, theirs) < TOLERANCE


@torch.no_grad()
def test_an_adapted_unet_equals_diffusers() -> None:
    """The features join the way down itself, not the skips alone: later blocks read them."""
    base, ours = unet(UNET), adapter()
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(2, 4, 9, 14, generator=generator)
    context = torch.randn(2, 11, 24, generator=generator)
    timesteps = torch.tensor([981.0, 12.5])
    features = ours(hint_of())
    theirs = diffusers_unet(base)(
        x, timesteps, context, down_intrablock_additional_residuals=[0.6 * feature for feature in features]
    )
    filled = openings(features, UNET, weight=0.6)
    found = base(x, timesteps, context, filled)
    assert relative_error(found, theirs.sample) < TOLERANCE
    halves = openings(features, UNET, 0.3).merged(openings(features, UNET, 0.3))
    assert relative_error(base(x, timesteps, context, halves), found) < TOLERANCE
    with pytest.raises(ValueError, match="input blocks 0 to 11"):
        base(x, timesteps, context, Openings(input_residuals={12: features[0]}))


def test_the_published_adapter_is_77_million_parameters() -> None:
    """The tensors of TencentARC/t2iadapter_canny_sd14v1, which diffusers publishes under other names."""
    from diffusers import T2IAdapter as Theirs

    with torch.device("meta"):
        ours, theirs = T2IAdapter(T2IAdapterConfig()), Theirs()
    names = to_diffusers(list(ours.state_dict()))
    assert {names[name]: shape for name, shape in shapes_of(ours).items()} == shapes_of(theirs)
    assert sum(parameter.numel() for parameter in ours.parameters()) == 77_369_280
    assert from_diffusers(list(names.values())) == {other: name for name, other in names.items()}


@pytest.mark.parametrize(
    "config",
    [
        T2IAdapterConfig(),
        SMALL,
        replace(SMALL, hint_channels=1),
        replace(SMALL, kernel=3, strided=True),
        T2IAdapterConfig(channels=(16, 32)),
    ],
)
def test_config_is_read_off_the_shapes(config: T2IAdapterConfig) -> None:
    with torch.device("meta"):
        network = T2IAdapter(config)
    assert T2IAdapterConfig.from_shapes(shapes_of(network)) == config


@pytest.mark.parametrize("config", [replace(SMALL, kernel=3), replace(SMALL, kernel=3, strided=True)])
@torch.no_grad()
def test_features_have_the_sizes_of_the_unets_levels(config: T2IAdapterConfig) -> None:
    sizes = [tuple(feature.shape[1:]) for feature in adapter(config)(hint_of())]
    assert sizes == [(32, 9, 14), (64, 5, 7), (128, 3, 4), (128, 2, 2)]


def test_other_adapters_are_refused() -> None:
    with torch.device("meta"):
        shapes = shapes_of(adapter())
    with pytest.raises(CheckpointError, match="found 768"):
        T2IAdapterConfig.from_shapes({**shapes, "conv_in.weight": (320, 768, 3, 3)})
    with pytest.raises(CheckpointError, match="0 blocks"):
        T2IAdapterConfig.from_shapes({"style_embedding": (1, 8, 1024)})
    with pytest.raises(CheckpointError, match="out_conv"):
        from_diffusers(["adapter.body.0.out_conv.weight"])
    with pytest.raises(CheckpointError, match="the model needs"):
        openings(adapter()(hint_of()), replace(UNET, channels=(32, 64, 128)))
    with pytest.raises(ValueError, match="multiples of 8"):
        adapter()(torch.zeros(1, 3, 64, 60))


def test_a_fresh_adapter_is_the_seeds_and_learns() -> None:
    before = torch.get_rng_state()
    first, again, other = (T2IAdapter.for_unet(UNET, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.conv_in.weight, again.conv_in.weight)
    assert not torch.equal(first.conv_in.weight, other.conv_in.weight)
    base = unet(UNET).requires_grad_(False)
    filled = openings(first(hint_of()), UNET)
    base(torch.ones(2, 4, 9, 14), torch.zeros(2), torch.ones(2, 5, 24), filled).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in first.parameters())
    assert all(parameter.grad is None for parameter in base.parameters())
