from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from oracles import built, diffusers_unet, random_weights, relative_error, shapes_of, unet
from torch import Tensor

from webui.errors import CheckpointError
from webui.networks.controlnet import ControlNet, ControlNetConfig, from_diffusers, to_diffusers
from webui.networks.unet import UNetConfig

TRUE_TOPOLOGY = UNetConfig(
    model_channels=32, time_channels=128, channels=(32, 64, 128, 128), context_channels=24, heads=4, norm_groups=8
)
LINEAR = replace(TRUE_TOPOLOGY, linear_projection=True, heads=2)
SHALLOW = replace(
    TRUE_TOPOLOGY,
    channels=(32, 64),
    input_depths=((1,), (0,)),
    output_depths=((0, 0), (1, 1)),
)
TOLERANCE = 1e-5


def controlnet(config: UNetConfig, seed: int = 1) -> ControlNet:
    """Random everywhere: the layers that training starts at zero, too."""
    return built(lambda: ControlNet(ControlNetConfig.of(config)), seed)


def inputs(config: UNetConfig, batch: int = 2, size: tuple[int, int] = (9, 14)) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(batch, config.in_channels, *size, generator=generator)
    hint = torch.rand(batch, 3, 8 * size[0], 8 * size[1], generator=generator)
    return x, hint, torch.tensor([981.0, 12.5])[:batch], torch.randn(batch, 11, config.context_channels)


def diffusers_controlnet(ours: ControlNet) -> Any:
    from diffusers import ControlNetModel

    config = ours.config
    with torch.device("meta"):
        theirs = ControlNetModel(
            in_channels=config.in_channels,
            block_out_channels=config.channels,
            down_block_types=["CrossAttnDownBlock2D" if any(d) else "DownBlock2D" for d in config.input_depths],
            layers_per_block=len(config.input_depths[0]),
            cross_attention_dim=config.context_channels,
            attention_head_dim=[config.heads_at(width) for width in config.channels],  # really the number of heads
            norm_num_groups=config.norm_groups,
            use_linear_projection=config.linear_projection,
        )
    names = to_diffusers(ours.state_dict(), config)
    theirs.load_state_dict({names[name]: tensor for name, tensor in ours.state_dict().items()}, assign=True)
    return theirs.eval()


@pytest.mark.parametrize("config", [TRUE_TOPOLOGY, LINEAR])
def test_equals_diffusers(config: UNetConfig) -> None:
    ours = controlnet(config)
    x, hint, timesteps, context = inputs(config)
    with torch.no_grad():
        found = ours(x, hint, timesteps, context)
        skips, middle = diffusers_controlnet(ours)(x, timesteps, context, hint, return_dict=False)
    assert len(found.skips) == len(skips) == 12
    for mine, theirs in zip((*found.skips, found.middle), (*skips, middle), strict=True):
        assert relative_error(mine, theirs) < TOLERANCE


def test_a_controlled_unet_equals_diffusers() -> None:
    base, ours = unet(TRUE_TOPOLOGY), controlnet(TRUE_TOPOLOGY)
    x, hint, timesteps, context = inputs(TRUE_TOPOLOGY)
    with torch.no_grad():
        skips, middle = diffusers_controlnet(ours)(
            x, timesteps, context, hint, conditioning_scale=0.7, return_dict=False
        )
        theirs = diffusers_unet(base)(
            x, timesteps, context, down_block_additional_residuals=skips, mid_block_additional_residual=middle
        )
        control = ours(x, hint, timesteps, context)
        found = base(x, timesteps, context, control.openings(0.7))
    assert relative_error(found, theirs.sample) < TOLERANCE


def test_the_published_control_is_361_million_parameters_in_340_tensors() -> None:
    """The counts of lllyasviel/sd-controlnet-canny, of which diffusers publishes the same tensors."""
    from diffusers import ControlNetModel

    with torch.device("meta"):
        ours = ControlNet(ControlNetConfig.of(UNetConfig()))
        theirs = ControlNetModel(cross_attention_dim=768)
    names = to_diffusers(ours.state_dict(), ours.config)
    assert {names[name]: shape for name, shape in shapes_of(ours).items()} == shapes_of(theirs)
    assert (len(names), sum(p.numel() for p in ours.parameters())) == (340, 361_279_120)


@pytest.mark.parametrize("config", [TRUE_TOPOLOGY, LINEAR, SHALLOW, replace(TRUE_TOPOLOGY, in_channels=9)])
def test_names_and_sizes_are_read_back(config: UNetConfig) -> None:
    with torch.device("meta"):
        shapes = shapes_of(ControlNet(ControlNetConfig.of(config)))
    assert ControlNetConfig.from_shapes(shapes, config.heads, config.norm_groups) == ControlNetConfig.of(config)
    theirs = to_diffusers(shapes, config)
    assert from_diffusers(theirs.values()) == {other: name for name, other in theirs.items()}


def test_what_is_no_controlnet_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no ControlNet"):
        ControlNetConfig.from_shapes(shapes_of(unet(SHALLOW)))
    with pytest.raises(CheckpointError, match="no down_blocks"):
        from_diffusers(["nothing.weight"])
    with pytest.raises(CheckpointError, match="stray"):
        from_diffusers(["down_blocks.0.resnets.0.conv1.weight", "stray.weight"])
    with pytest.raises(CheckpointError, match="label"):
        to_diffusers(["label_emb.0.0.weight"], TRUE_TOPOLOGY)


def test_a_fresh_controlnet_changes_no_bit() -> None:
    base = unet(TRUE_TOPOLOGY)
    fresh = ControlNet.from_unet(base, seed=3)
    x, hint, timesteps, context = inputs(TRUE_TOPOLOGY)
    with torch.no_grad():
        control = fresh(x, hint, timesteps, context)
        assert torch.equal(base(x, timesteps, context, control.openings()), base(x, timesteps, context))


def test_a_fresh_controlnet_is_the_seeds_and_the_unets_copy() -> None:
    base, before = unet(SHALLOW), torch.get_rng_state()
    first, again, other = (ControlNet.from_unet(base, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["input_hint_block.0.weight"], other["input_hint_block.0.weight"])
    source = base.state_dict()
    common = [name for name in first if name in source]
    assert len(common) == sum(not name.startswith(("output_blocks.", "out.")) for name in source)
    for name in common:
        assert torch.equal(first[name], source[name])
        assert first[name].data_ptr() != source[name].data_ptr(), name


def test_gradients_reach_the_joints_first_and_then_everything() -> None:
    """At zero weights only the joints themselves learn (section 3.2 of the paper); one step on, the copy does too."""
    base = unet(SHALLOW).requires_grad_(False)
    fresh = ControlNet.from_unet(base)
    x, hint, timesteps, context = inputs(SHALLOW)

    def backward() -> set[str]:
        fresh.zero_grad()
        predicted = base(x, timesteps, context, fresh(x, hint, timesteps, context).openings())
        predicted.square().mean().backward()
        return {name for name, p in fresh.named_parameters() if p.grad is not None and p.grad.any()}

    joints = {name for name in dict(fresh.named_parameters()) if name.startswith(("zero_convs.", "middle_block_out."))}
    assert backward() == joints
    assert all(parameter.grad is None for parameter in base.parameters())
    with torch.no_grad():
        for name, parameter in fresh.named_parameters():
            if name in joints or name.startswith("input_hint_block.14."):
                parameter.copy_(random_weights({name: tuple(parameter.shape)})[name])
    assert backward() == set(dict(fresh.named_parameters()))


def test_one_control_picture_serves_a_batch_and_all_steps() -> None:
    ours = controlnet(SHALLOW)
    x, hint, timesteps, context = inputs(SHALLOW)
    with torch.no_grad():
        features = ours.hint_features(hint[:1])
        once = ours.control(x, features, timesteps, context)
        each = ours(x, hint[:1].expand(2, -1, -1, -1), timesteps, context)
    assert relative_error(once.middle, each.middle) < TOLERANCE


def test_a_control_picture_of_another_size_is_refused() -> None:
    x, hint, timesteps, context = inputs(SHALLOW)
    with pytest.raises(ValueError, match=r"\[64, 112\].*\[72, 112\]"):
        controlnet(SHALLOW)(x, hint[:, :, :64], timesteps, context)
