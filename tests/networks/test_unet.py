from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oracles import diffusers_unet, relative_error, shapes_of, unet
from torch import Tensor

from webui.errors import CheckpointError
from webui.networks.unet import (
    Attend,
    Attending,
    AttentionWrap,
    Openings,
    SourceChange,
    UNet,
    UNetConfig,
    attend,
    timestep_embedding,
)

TOY = UNetConfig(
    model_channels=32,
    time_channels=64,
    channels=(32, 64, 96),
    input_depths=((1, 1), (1, 1), (0, 0)),
    output_depths=((0, 0, 0), (1, 1, 1), (1, 1, 1)),
    context_channels=24,
    heads=4,
    norm_groups=8,
)
SD2_LIKE = replace(TOY, linear_projection=True, heads=2, middle_depth=1, time_channels=128)
DEEPER_TRANSFORMERS = replace(
    TOY, input_depths=((0, 0), (2, 2), (1, 1)), output_depths=((1, 1, 1), (2, 2, 2), (0, 0, 0)), time_channels=128
)
EMBEDDED = replace(
    UNetConfig(), model_channels=32, time_channels=128, channels=(32, 64, 128, 128), context_channels=128, heads=2
)
TOLERANCE = 1e-4


def inputs(
    config: UNetConfig, batch: int = 2, size: tuple[int, int] = (13, 18), tokens: int = 77
) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(batch, config.in_channels, *size, generator=generator)
    timesteps = torch.tensor([981.0, 12.5, 400.0])[:batch]
    return x, timesteps, torch.randn(batch, tokens, config.context_channels, generator=generator)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def toy() -> UNet:
    return unet(replace(TOY, time_channels=128))


@pytest.mark.parametrize("config", [replace(TOY, time_channels=128), SD2_LIKE, DEEPER_TRANSFORMERS])
@pytest.mark.parametrize(("size", "tokens", "batch"), [((13, 18), 77, 2), ((8, 16), 154, 3), ((7, 5), 9, 1)])
def test_equals_diffusers(config: UNetConfig, size: tuple[int, int], tokens: int, batch: int) -> None:
    ours = unet(config)
    x, timesteps, context = inputs(config, batch, size, tokens)
    assert relative_error(ours(x, timesteps, context), diffusers_unet(ours)(x, timesteps, context).sample) < TOLERANCE


@pytest.mark.slow
def test_equals_diffusers_at_the_true_sd15_shapes() -> None:
    ours = unet(UNetConfig())
    theirs = diffusers_unet(ours)
    # The larger one also takes the Winograd convolutions.
    for batch, size, tokens in ((2, (9, 15), 77), (1, (32, 33), 154)):
        x, timesteps, context = inputs(ours.config, batch, size, tokens)
        assert relative_error(ours(x, timesteps, context), theirs(x, timesteps, context).sample) < TOLERANCE


def test_sd15_has_as_many_tensors_and_parameters_as_the_published_model() -> None:
    with torch.device("meta"):
        network = UNet(UNetConfig())
    assert len(network.state_dict()) == 686
    assert sum(parameter.numel() for parameter in network.parameters()) == 859_520_964


@pytest.mark.parametrize(
    "config", [UNetConfig(), TOY, SD2_LIKE, DEEPER_TRANSFORMERS, EMBEDDED, replace(TOY, in_channels=9)]
)
def test_config_is_read_off_the_shapes(config: UNetConfig) -> None:
    with torch.device("meta"):
        shapes = shapes_of(UNet(config))
    assert UNetConfig.from_shapes(shapes, heads=config.heads, norm_groups=config.norm_groups) == config


def test_heads_follow_the_kind_of_projection_when_nothing_says_otherwise() -> None:
    with torch.device("meta"):
        conv, linear = (
            shapes_of(UNet(config)) for config in (UNetConfig(), replace(UNetConfig(), linear_projection=True))
        )
    assert [UNetConfig.from_shapes(conv).heads_at(width) for width in (320, 640, 1280)] == [8, 8, 8]
    assert [UNetConfig.from_shapes(linear).heads_at(width) for width in (320, 640, 1280)] == [5, 10, 20]


@pytest.mark.parametrize("missing", ["input_blocks.0.0.weight", "out.2.weight", "time_embed.0.weight"])
def test_a_missing_tensor_is_named(missing: str) -> None:
    shapes = shapes_of(unet(TOY))
    del shapes[missing]
    with pytest.raises(CheckpointError, match=missing.replace(".", r"\.")):
        UNetConfig.from_shapes(shapes)


def test_an_sdxl_unet_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match="SDXL"):
        UNetConfig.from_shapes({**shapes_of(unet(TOY)), "label_emb.0.0.weight": (1280, 2816)})


def test_timestep_embedding_is_the_published_sinusoid() -> None:
    from diffusers.models.embeddings import get_timestep_embedding

    timesteps = torch.tensor([0.0, 0.25, 17.0, 999.0])
    expected = get_timestep_embedding(timesteps, 320, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert torch.equal(timestep_embedding(timesteps, 320), expected)


def test_a_batch_is_its_pictures_one_by_one(toy: UNet) -> None:
    x, timesteps, context = inputs(toy.config, 3)
    alone = torch.cat([toy(x[i : i + 1], timesteps[i : i + 1], context[i : i + 1]) for i in range(3)])
    assert relative_error(toy(x, timesteps, context), alone) < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.15), (torch.float16, 0.02)])
def test_half_precision_stays_near_fp32(dtype: torch.dtype, tolerance: float) -> None:
    ours = unet(EMBEDDED)
    x, timesteps, context = inputs(ours.config)
    expected = ours(x, timesteps, context)
    found = ours.to(dtype)(x, timesteps, context)
    assert found.dtype is x.dtype
    assert relative_error(found, expected) < tolerance


def test_the_same_call_gives_the_same_bits(toy: UNet) -> None:
    arguments = inputs(toy.config, size=(40, 24))
    assert torch.equal(toy(*arguments), toy(*arguments))


def skip_shapes(network: UNet, x: Tensor) -> list[tuple[int, ...]]:
    """What the input blocks leave, from the oracle's own bookkeeping of channels and halved sizes."""
    shapes, size = [(network.config.channels[0], *x.shape[2:])], x.shape[2:]
    for level, width in enumerate(network.config.channels):
        if level:
            size = tuple((side + 1) // 2 for side in size)
            shapes.append((network.config.channels[level - 1], *size))
        shapes += [(width, *size)] * 2
    return shapes


def residuals(network: UNet, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    shapes = skip_shapes(network, x)
    generator = torch.Generator().manual_seed(3)
    skips = tuple(torch.randn(len(x), *shape, generator=generator) for shape in shapes)
    return skips, torch.randn(len(x), *shapes[-1], generator=generator)


def test_residuals_enter_where_diffusers_adds_those_of_a_controlnet(toy: UNet) -> None:
    x, timesteps, context = inputs(toy.config)
    skips, middle = residuals(toy, x)
    theirs = diffusers_unet(toy)(
        x, timesteps, context, down_block_additional_residuals=skips, mid_block_additional_residual=middle
    )
    found = toy(x, timesteps, context, Openings(skip_residuals=skips, middle_residual=middle))
    assert relative_error(found, theirs.sample) < TOLERANCE


def test_extra_context_is_read_after_the_prompt(toy: UNet) -> None:
    x, timesteps, context = inputs(toy.config, tokens=81)
    found = toy(x, timesteps, context[:, :77], Openings(extra_context=context[:, 77:]))
    assert torch.equal(found, toy(x, timesteps, context))


def test_attention_bias_of_minus_infinity_hides_tokens(toy: UNet) -> None:
    x, timesteps, context = inputs(toy.config)
    bias = torch.zeros(2, 77, 1, 1)
    bias[0, 50:] = bias[1, 20:] = float("-inf")
    mask = (bias[:, :, 0, 0] == 0).long()
    theirs = diffusers_unet(toy)(x, timesteps, context, encoder_attention_mask=mask).sample
    assert relative_error(toy(x, timesteps, context, Openings(attention_bias=bias)), theirs) < TOLERANCE


def test_attention_bias_may_differ_from_place_to_place(toy: UNet) -> None:
    """Where the whole picture hides a token, hiding it place by place is the same; half the picture is not."""
    x, timesteps, context = inputs(toy.config, size=(16, 16))
    everywhere = torch.zeros(1, 77, 1, 1)
    everywhere[:, 5:] = float("-inf")
    left = everywhere.repeat(1, 1, 16, 16)
    left[..., 8:] = 0
    whole = toy(x, timesteps, context, Openings(attention_bias=everywhere))
    placed = toy(x, timesteps, context, Openings(attention_bias=everywhere.expand(1, 77, 16, 16).contiguous()))
    assert torch.equal(placed, whole)
    assert not torch.equal(toy(x, timesteps, context, Openings(attention_bias=left)), whole)


def test_extra_context_bias_hides_extra_tokens(toy: UNet) -> None:
    x, timesteps, context = inputs(toy.config, tokens=81)
    hidden = Openings(extra_context=context[:, 77:], extra_context_bias=torch.full((1, 4, 1, 1), float("-inf")))
    assert relative_error(toy(x, timesteps, context[:, :77], hidden), toy(x, timesteps, context[:, :77])) < 1e-5


def test_extra_channels_are_what_an_inpainting_unet_reads_after_the_latent() -> None:
    ours = unet(replace(TOY, in_channels=9, time_channels=128))
    x, timesteps, context = inputs(ours.config)
    found = ours(x[:, :4], timesteps, context, Openings(extra_channels=x[:, 4:]))
    assert relative_error(found, diffusers_unet(ours)(x, timesteps, context).sample) < TOLERANCE


def test_weight_deltas_are_the_network_with_changed_weights(toy: UNet) -> None:
    changed = unet(toy.config)
    deltas = {name: 0.1 * torch.randn(tensor.shape) for name, tensor in changed.state_dict().items()}
    for name, delta in deltas.items():
        changed.state_dict()[name].add_(delta)
    arguments = inputs(toy.config)
    assert torch.equal(toy(*arguments, Openings(weight_deltas=deltas)), changed(*arguments))


def every_opening(network: UNet, x: Tensor) -> dict[str, Openings]:
    skips, middle = residuals(network, x)
    tokens = torch.randn(1, 4, network.config.context_channels)
    return {
        "skip residuals": Openings(skip_residuals=skips),
        "middle residual": Openings(middle_residual=middle),
        "input residuals": Openings(input_residuals={2: skips[2], 8: skips[8]}),
        "extra context": Openings(extra_context=tokens),
        "extra context with bias": Openings(extra_context=tokens, extra_context_bias=torch.randn(1, 4, 1, 1)),
        "attention bias": Openings(attention_bias=torch.randn(2, 77, 1, 1)),
        "weight deltas": Openings(weight_deltas={"out.2.weight": torch.ones_like(network.out[2].weight)}),
        "source changes": Openings(source_changes=(lambda keys, values: (keys * 2, values),)),
        "attention wraps": Openings(attention_wraps=(lambda asked, attend: attend(asked) * 2,)),
        "rising changes": Openings(rising_changes=(lambda number, hidden, skip: (hidden, skip * 0.5),)),
        "attention kind": Openings(attention_kind=lambda asked: attend(asked) * 2),
    }


def test_taking_an_opening_away_leaves_the_model_bit_identical(toy: UNet) -> None:
    x, timesteps, context = inputs(toy.config)
    weights = {name: tensor.clone() for name, tensor in toy.state_dict().items()}
    plain = toy(x, timesteps, context)
    for name, openings in every_opening(toy, x).items():
        assert not torch.equal(toy(x, timesteps, context, openings), plain), name
        assert torch.equal(toy(x, timesteps, context), plain), name
    assert torch.equal(toy(x, timesteps, context, Openings()), plain)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in toy.state_dict().items())


def test_taking_extra_channels_away_leaves_the_model_bit_identical() -> None:
    ours = unet(replace(TOY, in_channels=5, time_channels=128))
    x, timesteps, context = inputs(ours.config)
    weights = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    plain = ours(x, timesteps, context)
    assert not torch.equal(ours(x[:, :4], timesteps, context, Openings(extra_channels=x[:, 4:] + 1)), plain)
    assert torch.equal(ours(x, timesteps, context), plain)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in ours.state_dict().items())


def test_merged_openings_are_both_at_once(toy: UNet) -> None:
    x, timesteps, context = inputs(toy.config, tokens=83)
    skips, middle = residuals(toy, x)
    bias = torch.randn(2, 83, 1, 1)
    delta = {"out.2.weight": torch.randn_like(toy.out[2].weight)}
    first = Openings(
        skip_residuals=skips,
        attention_bias=bias[:, :77],
        extra_context=context[:, 77:80],
        extra_context_bias=bias[:, 77:80],
        weight_deltas=delta,
    )
    second = Openings(skip_residuals=skips, middle_residual=middle, extra_context=context[:, 80:], weight_deltas=delta)
    bias[:, 80:] = 0
    whole = Openings(
        skip_residuals=tuple(2 * skip for skip in skips),
        middle_residual=middle,
        attention_bias=bias,
        weight_deltas={name: 2 * tensor for name, tensor in delta.items()},
    )
    found = toy(x, timesteps, context[:, :77], first.merged(second))
    assert relative_error(found, toy(x, timesteps, context, whole)) < 1e-5
    assert torch.equal(toy(x, timesteps, context, whole.merged(Openings())), toy(x, timesteps, context, whole))


def test_a_wrap_sees_every_attention_with_its_site_and_changes_nothing_by_looking(toy: UNet) -> None:
    x, timesteps, context = inputs(toy.config)
    seen: list[Attending] = []

    def look(attending: Attending, attend: Attend) -> Tensor:
        seen.append(attending)
        return attend(attending)

    assert torch.equal(toy(x, timesteps, context, Openings(attention_wraps=(look,))), toy(x, timesteps, context))
    modules = {name for name, _ in toy.named_modules() if name.endswith((".attn1", ".attn2"))}
    assert {attending.site for attending in seen} == modules and len(seen) == len(modules)
    for attending in seen:
        assert attending.is_cross is attending.site.endswith("attn2")
        assert attending.query.shape[1] == attending.size[0] * attending.size[1]
        assert attending.key.shape[1] == (context.shape[1] if attending.is_cross else attending.query.shape[1])


def test_wraps_stand_around_each_other_the_first_one_outermost(toy: UNet) -> None:
    order: list[str] = []

    def named(name: str) -> AttentionWrap:
        def wrap(attending: Attending, attend: Attend) -> Tensor:
            order.append(name)
            return attend(attending)

        return wrap

    openings = Openings(attention_wraps=(named("a"),)).merged(Openings(attention_wraps=(named("b"),)))
    toy(*inputs(toy.config), openings)
    assert order[:2] == ["a", "b"] and set(zip(order[::2], order[1::2], strict=True)) == {("a", "b")}


def test_keys_and_values_added_by_a_wrap_are_those_of_extra_context(toy: UNet) -> None:
    x, timesteps, context = inputs(toy.config, tokens=80)
    sites = dict(toy.named_modules())

    def more(attending: Attending, attend: Attend) -> Tensor:
        if not attending.is_cross:
            return attend(attending)
        site = sites[attending.site]
        key, value = (
            torch.cat([tokens, layer(context[:, 77:])], dim=1)
            for tokens, layer in ((attending.key, site.to_k), (attending.value, site.to_v))
        )
        return attend(replace(attending, key=key, value=value))

    found = toy(x, timesteps, context[:, :77], Openings(attention_wraps=(more,)))
    assert relative_error(found, toy(x, timesteps, context)) < TOLERANCE


@pytest.mark.parametrize("changes", [(), (lambda keys, values: (keys * 1.5, values + 0.1),)])
def test_another_context_that_a_wrap_reads_is_as_if_it_had_been_the_context(
    toy: UNet, changes: tuple[SourceChange, ...]
) -> None:
    x, timesteps, context = inputs(toy.config, tokens=80)
    mine, theirs = context[:, :30], context[:, 30:]

    def exchanged(attending: Attending, attend: Attend) -> Tensor:
        if not attending.is_cross:
            return attend(attending)
        key, value = attending.read(mine)
        return attend(replace(attending, key=key, value=value))

    found = toy(x, timesteps, theirs, Openings(attention_wraps=(exchanged,), source_changes=changes))
    assert torch.equal(found, toy(x, timesteps, mine, Openings(source_changes=changes)))


def test_rising_changes_see_what_each_output_block_reads(toy: UNet) -> None:
    x, timesteps, context = inputs(toy.config)
    seen = []

    def look(number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((number, tuple(skip.shape[1:])))
        assert hidden.shape[2:] == skip.shape[2:]
        return hidden, skip

    assert torch.equal(toy(x, timesteps, context, Openings(rising_changes=(look,))), toy(x, timesteps, context))
    assert seen == list(enumerate(reversed(skip_shapes(toy, x))))


def test_openings_that_do_not_fit_are_refused(toy: UNet) -> None:
    arguments = inputs(toy.config)
    with pytest.raises(ValueError, match="9 skips, but 1"):
        toy(*arguments, Openings(skip_residuals=(torch.zeros(1),)))
    with pytest.raises(ValueError, match='no parameter "nothing"'):
        toy(*arguments, Openings(weight_deltas={"nothing": torch.zeros(1)}))
