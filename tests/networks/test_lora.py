"""LoRA pairs: peft through diffusers as the oracle, the formula by hand, and a base that nothing touches."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import clip, diffusers_unet, relative_error, transformers_clip, unet, unet_names
from torch import Tensor

from webui.networks.adapters import KINDS, change_of, fits
from webui.networks.adapters.change import Kind
from webui.networks.adapters.low_rank import LowRank
from webui.networks.adapters.parts import Parts
from webui.networks.clip import ClipTextConfig, ClipTextEncoder
from webui.networks.kernels import arrange
from webui.networks.layer_names import TEXT_ENCODER, UNET, Target, diffusers_blocks, lora_targets
from webui.networks.lora import Fitted, Use, changes_of, fit, merged
from webui.networks.unet import UNet, UNetConfig

TOY = UNetConfig(
    model_channels=32,
    time_channels=128,
    channels=(32, 64, 96),
    input_depths=((1, 1), (1, 1), (0, 0)),
    output_depths=((0, 0, 0), (1, 1, 1), (1, 1, 1)),
    context_channels=24,
    heads=4,
    norm_groups=8,
)
LINEAR = replace(TOY, linear_projection=True)
TEXT = ClipTextConfig(width=24, layers=2, heads=2, mlp_width=48, vocabulary=1000)
RANK = 3


@pytest.fixture(scope="module")
def encoder() -> ClipTextEncoder:
    return clip(TEXT)


def pair(shape: tuple[int, ...], generator: torch.Generator, rank: int = RANK) -> tuple[Tensor, Tensor]:
    """Down and up as kohya's trainer stores them: a convolution's kernel is in the down part."""
    down = torch.randn(rank, *shape[1:], generator=generator) * 0.2
    up = torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=generator) * 0.2
    return down, up


def kohya_file(targets: Mapping[str, Target], alpha: float = 1.5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    file = {}
    for name, target in targets.items():
        down, up = pair(target.shape, generator)
        file |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(alpha)}
    return file


def unet_inputs(config: UNetConfig) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(2, config.in_channels, 12, 16, generator=generator)
    return x, torch.tensor([981.0, 12.0]), torch.randn(2, 7, config.context_channels, generator=generator)


@pytest.mark.parametrize("config", [TOY, LINEAR])
def test_blocks_have_diffusers_names(config: UNetConfig) -> None:
    expected = {ours: theirs for ours, theirs in unet_names(config).items() if "upsamplers" not in theirs}
    named = diffusers_blocks(config)
    parts = {ours: theirs for ours, theirs in named.items() if "samplers" not in theirs}
    assert parts.items() <= expected.items()
    network = unet(config)
    paths = {path for path, _ in network.named_modules()}
    resampled = {ours: theirs for ours, theirs in named.items() if "samplers" in theirs and ours in paths}
    assert resampled.items() <= unet_names(config).items() and len(resampled) == 4


def test_published_names_of_stable_diffusion_1() -> None:
    """Names that every kohya SD1 file has; 192 layers of the UNet and 72 of the text encoder (LoRA-C3Lier: 278)."""
    with torch.device("meta"):
        sd1, text = UNet(UNetConfig()), ClipTextEncoder(ClipTextConfig())
    plain = lora_targets(sd1, text, convolutions=False)
    assert len(plain) == 192 + 72
    assert plain["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"] == Target(
        UNET, "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight", (320, 320)
    )
    assert plain["lora_unet_mid_block_attentions_0_proj_in"].shape == (1280, 1280, 1, 1)
    assert plain["lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_attn2_to_out_0"].parameter == (
        "output_blocks.11.1.transformer_blocks.0.attn2.to_out.0.weight"
    )
    assert plain["lora_te_text_model_encoder_layers_11_mlp_fc1"] == Target(
        TEXT_ENCODER, "text_model.encoder.layers.11.mlp.fc1.weight", (3072, 768)
    )
    whole = lora_targets(sd1, text, convolutions=True, text=False)
    added = {name for name in whole if name not in plain}
    assert len(added) == 22 * 3 + 14 + 3 + 3  # 22 ResBlocks, 14 of them with a shortcut, and the resamplers
    assert {
        "lora_unet_down_blocks_0_resnets_0_conv1",
        "lora_unet_mid_block_resnets_1_time_emb_proj",
        "lora_unet_up_blocks_0_resnets_2_conv_shortcut",
        "lora_unet_down_blocks_2_downsamplers_0_conv",
        "lora_unet_up_blocks_0_upsamplers_0_conv",
    } <= added


@pytest.mark.parametrize("config", [TOY, LINEAR])
@pytest.mark.parametrize("convolutions", [False, True])
def test_equals_peft(config: UNetConfig, convolutions: bool, encoder: ClipTextEncoder) -> None:
    from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader

    ours = unet(config)
    file = kohya_file(lora_targets(ours, encoder, convolutions=convolutions, text=False))
    changed = merged(ours, changes_of(UNET, [Use(fit(file, {}, ours, encoder), 1.0, 0.7)]))
    theirs = diffusers_unet(copy.deepcopy(ours))
    state, alphas = Loader.lora_state_dict(dict(file), unet_config=theirs.config)
    Loader.load_lora_into_unet(state, network_alphas=alphas, unet=theirs, adapter_name="a")
    theirs.set_adapters(["a"], [0.7])
    x, timesteps, context = unet_inputs(config)
    with torch.inference_mode():
        expected = theirs(x, timesteps, context).sample
        assert relative_error(changed(x, timesteps, context), expected) < 1e-5
        assert relative_error(ours(x, timesteps, context), expected) > 0.05


def test_text_encoder_equals_peft(encoder: ClipTextEncoder) -> None:
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    theirs = transformers_clip(copy.deepcopy(encoder))
    targets = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=6, target_modules=targets), theirs)
    network = unet(TOY)
    names = lora_targets(network, encoder, convolutions=False)
    file = kohya_file({name: target for name, target in names.items() if target.network == TEXT_ENCODER}, alpha=6)
    peft_file = {}
    for name, target in names.items():
        if target.network == TEXT_ENCODER:
            path = target.parameter.removesuffix(".weight").removeprefix("text_model.")
            peft_file[f"{path}.lora_A.weight"] = file[f"{name}.lora_down.weight"]
            peft_file[f"{path}.lora_B.weight"] = file[f"{name}.lora_up.weight"]
    result = set_peft_model_state_dict(theirs, peft_file)
    assert not result.unexpected_keys
    changed = merged(encoder, changes_of(TEXT_ENCODER, [Use(fit(file, {}, network, encoder), 1.0, 1.0)]))
    tokens = torch.arange(77)[None]
    with torch.inference_mode():
        assert relative_error(changed(tokens), theirs(tokens).last_hidden_state) < 1e-5


def renamed(file: Mapping[str, Tensor], style: str, network: UNet, encoder: ClipTextEncoder) -> dict[str, Tensor]:
    """The file as another program would name it, without its alphas."""
    blocks = unet_names(network.config)
    result = {}
    for name, target in lora_targets(network, encoder, convolutions=True).items():
        own = target.parameter.removesuffix(".weight")
        down, up = file[f"{name}.lora_down.weight"], file[f"{name}.lora_up.weight"]
        block = max((block for block in blocks if own.startswith(block)), key=len, default="")
        layer = own[len(block) :]
        is_unet = target.network == UNET
        for ours, theirs in (("in_layers.2", "conv1"), ("emb_layers.1", "time_emb_proj"), ("out_layers.3", "conv2")):
            layer = layer.replace(ours, theirs)
        path = blocks[block] + layer.replace("skip_connection", "conv_shortcut") if is_unet else own
        prefix = "unet" if is_unet else "text_encoder"
        if style == "peft":
            keys = f"{prefix}.{path}.lora_A.weight", f"{prefix}.{path}.lora_B.weight"
        elif style == "peft adapter":
            keys = (f"{prefix}.base_model.model.{path}.lora_{part}.default.weight" for part in "AB")
        elif style == "compvis":
            flat = ("lora_unet_" if is_unet else "lora_te1_") + own.replace(".", "_")
            keys = f"{flat}.lora_down.weight", f"{flat}.lora_up.weight"
        else:
            parent, _, last = path.removesuffix(".0").rpartition(".")
            attends = ".attn" in path
            spelled = f"{parent}.processor.{last}_lora" if attends else f"{path}.lora"
            spelled = spelled if is_unet else f"{path}.lora_linear_layer"
            keys = f"{prefix}.{spelled}.down.weight", f"{prefix}.{spelled}.up.weight"
        result |= dict(zip(keys, (down, up), strict=True))
    return result


@pytest.mark.parametrize("style", ["peft", "peft adapter", "compvis", "old diffusers"])
def test_other_programs_names_mean_the_same(style: str, encoder: ClipTextEncoder) -> None:
    network = unet(TOY)
    file = kohya_file(lora_targets(network, encoder, convolutions=True), alpha=RANK)
    expected, found = fit(file, {}, network, encoder), fit(renamed(file, style, network, encoder), {}, network, encoder)
    assert found.unknown == found.misshapen == () and found.changes.keys() == expected.changes.keys()
    for target, low_rank in found.changes.items():
        weight = torch.empty(target.shape)
        assert torch.equal(low_rank.delta(weight), expected.changes[target].delta(weight))


def test_the_scale_that_peft_states(encoder: ClipTextEncoder) -> None:
    network = unet(TOY)
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    down, up = pair((96, 96), torch.Generator().manual_seed(0))
    file = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}

    def scale(stated: str) -> float:
        (found,) = fit(file, {"lora_adapter_metadata": stated}, network, encoder).changes.values()
        return found.scale

    assert scale('{"unet.r": 3, "unet.lora_alpha": 6}') == 2.0
    assert scale('{"unet.lora_alpha": 6, "unet.use_rslora": true}') == pytest.approx(6 / 3**0.5)
    assert scale('{"unet.lora_alpha": 6, "unet.alpha_pattern": {"attn1.to_q": 9}}') == 3.0
    assert scale("[]") == scale("no json") == scale("{}") == 1.0


def test_a_convolution_by_hand_and_its_first_ranks() -> None:
    down, up = pair((4, 5, 3, 3), torch.Generator().manual_seed(1), rank=2)
    expected = torch.einsum("or,rikl->oikl", up.flatten(1), down)
    low_rank, weight = LowRank(down, up, 0.5), torch.empty(4, 5, 3, 3)
    torch.testing.assert_close(low_rank.delta(weight), expected * 0.5)
    first = torch.einsum("o,ikl->oikl", up[:, 0, 0, 0], down[0])
    torch.testing.assert_close(low_rank.delta(weight, ranks=1), first * 0.5)


def test_the_base_stays_bit_identical_and_shares_what_is_not_changed(encoder: ClipTextEncoder) -> None:
    network = unet(TOY)
    arrange(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    targets = lora_targets(network, encoder, convolutions=True)
    fitted = fit(kohya_file(targets), {}, network, encoder)
    changed = merged(network, changes_of(UNET, [Use(fitted, 0.0, 0.9)]))
    touched = {target.parameter for target in targets.values() if target.network == UNET}
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
        other = changed.state_dict()[name]
        assert (other.data_ptr() == tensor.data_ptr()) == (name not in touched), name
        assert other.stride() == tensor.stride()
    assert changed.state_dict().keys() == before.keys()
    assert merged(encoder, changes_of(TEXT_ENCODER, [Use(fitted, 0.0, 0.9)])) is encoder


def test_sums_are_rounded_once_in_the_weights_own_dtype(encoder: ClipTextEncoder) -> None:
    network = unet(TOY).bfloat16()
    fitted = fit(kohya_file(lora_targets(network, encoder, convolutions=False, text=False)), {}, network, encoder)
    changed = merged(network, changes_of(UNET, [Use(fitted, 1.0, 0.5), Use(fitted, 1.0, 0.25)]))
    for target, low_rank in fitted.changes.items():
        whole = network.get_parameter(target.parameter).float() + 0.75 * low_rank.delta(torch.empty(target.shape))
        found = changed.get_parameter(target.parameter)
        assert found.dtype is torch.bfloat16
        assert torch.allclose(found.float(), whole.bfloat16().float(), rtol=2**-7, atol=1e-6)


def test_what_does_not_fit_is_told(encoder: ClipTextEncoder) -> None:
    network = unet(TOY)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (f"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_{x}" for x in "qkv")
    norm = "lora_unet_mid_block_attentions_0_norm"
    good, wide = pair((96, 96), generator), pair((96, 128), generator)
    file = {
        f"{q}.lora_down.weight": good[0], f"{q}.lora_up.weight": good[1], f"{q}.alpha": torch.tensor(3.0),
        f"{k}.lora_down.weight": wide[0], f"{k}.lora_up.weight": wide[1],
        f"{v}.lora_down.weight": good[0], f"{v}.lora_up.weight": good[1], f"{v}.rescale": torch.ones(96, 1),
        f"{q}.diff_b": torch.ones(96), f"{norm}.w_norm": torch.ones(95), f"{norm}.b_norm": torch.ones(96),
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(3.0),
        "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.ones(()),
        "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": good[1],
        "lora_unet_mid_block_attentions_0_proj_out.alpha": torch.tensor(3.0),
        "bundle_emb.word.emb_params": torch.ones(2, 24),
    }  # fmt: skip
    fitted: Fitted = fit(file, {}, network, encoder)
    assert fitted.used == 6
    assert [target.parameter.split(".", 1)[1] for target in fitted.changes] == [
        "1.transformer_blocks.0.attn1.to_q.weight",
        "1.transformer_blocks.0.attn1.to_v.weight",
        "1.norm.bias",
    ]
    proj_in = "lora_unet_mid_block_attentions_0_proj_in"
    assert set(fitted.misshapen) == {
        *(f"{layer}.lora_{part}.weight" for layer in (k, proj_in) for part in ("down", "up")),
        f"{q}.diff_b",  # to_q has no bias
        f"{norm}.w_norm",
    }
    assert set(fitted.unknown) == {
        f"{v}.rescale",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha",
        "lora_unet_mid_block_attentions_0_proj_out.alpha",
    }


def test_norms_and_biases_by_the_names_of_lycoris(encoder: ClipTextEncoder) -> None:
    """``lycoris.LycorisNetwork`` names every layer after its path, with underscores."""
    network = unet(TOY)
    theirs = diffusers_unet(copy.deepcopy(network))
    generator = torch.Generator().manual_seed(0)
    file = {}
    for path, layer in theirs.named_modules():
        if isinstance(layer, torch.nn.GroupNorm | torch.nn.LayerNorm):
            name = f"lora_unet_{path.replace('.', '_')}"
            for key, parameter in ((f"{name}.w_norm", layer.weight), (f"{name}.b_norm", layer.bias)):
                file[key] = torch.randn(parameter.shape, generator=generator) * 0.3
                parameter.data += file[key]
        elif isinstance(layer, torch.nn.Conv2d):
            name = f"lora_unet_{path.replace('.', '_')}"
            file[f"{name}.diff"] = torch.randn(layer.weight.shape, generator=generator) * 0.02
            file[f"{name}.diff_b"] = torch.randn(layer.bias.shape, generator=generator) * 0.1
            layer.weight.data += file[f"{name}.diff"]
            layer.bias.data += file[f"{name}.diff_b"]
    fitted = fit(file, {}, network, encoder)
    assert fitted.used == len(file) and not fitted.unknown and not fitted.misshapen
    changed = merged(network, changes_of(UNET, [Use(fitted, 1.0, 1.0)]))
    x, timesteps, context = unet_inputs(TOY)
    with torch.inference_mode():
        expected = theirs(x, timesteps, context).sample
        assert relative_error(changed(x, timesteps, context), expected) < 1e-5
        assert relative_error(network(x, timesteps, context), expected) > 0.05


def test_a_plain_models_file_leaves_an_inpainting_models_further_inputs(encoder: ClipTextEncoder) -> None:
    plain, wider = unet(TOY), unet(replace(TOY, in_channels=9))
    file = {"lora_unet_conv_in.diff": torch.randn(32, 4, 3, 3)}
    fitted = fit(file, {}, wider, encoder)
    changed = merged(wider, changes_of(UNET, [Use(fitted, 1.0, 1.0)]))
    name = "input_blocks.0.0.weight"
    difference = changed.get_parameter(name) - wider.get_parameter(name)
    torch.testing.assert_close(difference[:, :4], file["lora_unet_conv_in.diff"], rtol=0, atol=1e-6)
    assert not difference[:, 4:].any()
    assert not fit({"lora_unet_conv_in.diff": torch.ones(32, 5, 3, 3)}, {}, plain, encoder).changes


def every_kind(network: UNet) -> dict[str, Tensor]:
    """A file with one layer of each kind, in the middle of the UNet."""
    block = "lora_unet_mid_block_attentions_0"
    attention = f"{block}_transformer_blocks_0_attn"
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.1

    layers: dict[str, dict[str, Tensor]] = {
        f"{attention}1_to_q": {"lora_down.weight": random(2, 96), "lora_up.weight": random(96, 2)},
        f"{attention}1_to_k": {
            "lora_down.weight": random(2, 96), "lora_up.weight": random(96, 2), "dora_scale": random(1, 96) + 1,
        },
        f"{attention}1_to_v": {f"hada_{w}": random(*shape) for w, shape in (
            ("w1_a", (96, 2)), ("w1_b", (2, 96)), ("w2_a", (96, 2)), ("w2_b", (2, 96)),
        )},
        f"{attention}1_to_out_0": {"lokr_w1": random(4, 4), "lokr_w2": random(24, 24)},
        f"{attention}2_to_q": {"weight": random(96), "on_input": torch.tensor(1)},
        f"{attention}2_to_out_0": {"oft_blocks": random(4, 24, 24), "alpha": torch.tensor(0.0)},
        f"{block}_proj_in": {"oft_blocks": random(2, 4, 24, 24)},
        f"{block}_proj_out": {
            "a1.weight": random(96, 2, 1, 1), "a2.weight": random(2, 96, 1, 1),
            "b1.weight": random(96, 2, 1, 1), "b2.weight": random(2, 96, 1, 1), "alpha": torch.tensor(1.0),
        },
        f"{block}_norm": {"w_norm": random(96), "b_norm": random(96)},
        f"{block}_transformer_blocks_0_norm1": {"set_weight": random(96) + 1},
        "lora_unet_mid_block_resnets_0_conv1": {
            "lora_down.weight": random(2, 96, 1, 1), "lora_mid.weight": random(2, 2, 3, 3),
            "lora_up.weight": random(96, 2, 1, 1),
        },
        "lora_unet_mid_block_resnets_0_conv2": {"diff": random(96, 96, 3, 3), "diff_b": random(96)},
    }  # fmt: skip
    return {f"{layer}.{part}": tensor for layer, parts in layers.items() for part, tensor in parts.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_kind_touches_the_base(encoder: ClipTextEncoder, dtype: torch.dtype) -> None:
    network = unet(TOY).to(dtype)
    arrange(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    file = every_kind(network)
    fitted = fit(file, {}, network, encoder)
    assert fitted.used == len(file) and not fitted.unknown and not fitted.misshapen and len(fitted.changes) == 14
    changes = changes_of(UNET, [Use(fitted, 1.0, 0.8), Use(fitted, 1.0, -0.3)])
    changed = merged(network, changes)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
        other = changed.state_dict()[name]
        assert (other.data_ptr() == tensor.data_ptr()) == (name not in changes), name
        assert torch.equal(other, tensor) == (name not in changes), name
        assert other.stride() == tensor.stride() and other.dtype is dtype
    again = merged(network, changes)
    assert all(torch.equal(tensor, changed.state_dict()[name]) for name, tensor in again.state_dict().items())


def test_several_files_on_one_weight(encoder: ClipTextEncoder) -> None:
    """Each changes what the one before left, as in AUTOMATIC1111; for sums that is no matter."""
    network = unet(TOY)
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    name = "middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    weight = network.get_parameter(name)
    added, factors = torch.randn(96, 96), torch.rand(96)
    files = [{f"{layer}.diff": added}, {f"{layer}.weight": factors, f"{layer}.on_input": torch.tensor(1)}]
    fitted = [fit(file, {}, network, encoder) for file in files]
    for order, expected in (
        ((0, 1), (weight + 0.5 * added) * (1 + 2 * factors)),
        ((1, 0), weight * (1 + 2 * factors) + 0.5 * added),
        ((0, 0), weight + added),
    ):
        uses = [Use(fitted[index], 1.0, (0.5, 2.0)[index]) for index in order]
        found = merged(network, changes_of(UNET, uses)).get_parameter(name)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_blocks_are_weighed_one_by_one(encoder: ClipTextEncoder) -> None:
    network = unet(TOY)
    targets = lora_targets(network, encoder, convolutions=True)
    fitted = fit(kohya_file(targets), {}, network, encoder)
    blocks = tuple(float(number) for number in range(26))
    use = Use(fitted, 2.0, 3.0, None, blocks)
    weights = {target.parameter: use.weight_on(target) for target in fitted.changes}
    assert weights["input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight"] == 3 * 5
    assert weights["middle_block.1.proj_in.weight"] == 3 * 13
    assert weights["output_blocks.7.0.in_layers.2.weight"] == 3 * (14 + 7)
    assert weights["text_model.encoder.layers.0.mlp.fc1.weight"] == 0
    assert Target(UNET, "time_embed.0.weight", ()).block is Target(UNET, "out.2.weight", ()).block is None
    assert use.weight_on(Target(UNET, "out.2.weight", ())) == 3
    changed = changes_of(UNET, [use])
    assert changed["output_blocks.7.0.in_layers.2.weight"][0].weight == 63
    assert not changes_of(TEXT_ENCODER, [use])


PARTS = (
    "lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha", "dora_scale", "lora_magnitude_vector", "diff",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "lokr_w1", "lokr_w1_a", "lokr_w1_b",
    "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "oft_blocks", "oft_diag", "rescale", "diff_b", "w_norm", "b_norm",
    "set_weight", "on_input", "weight", "a1.weight", "a2.weight", "b1.weight", "b2.weight", "bm.weight", "strange",
)  # fmt: skip
ODD_LAYERS = (
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q", "lora_unet_mid_block_resnets_0_conv1",
    "lora_unet_mid_block_attentions_0_norm", "lora_te_text_model_encoder_layers_0_mlp_fc1", "", "x",
    "lora_te_text_model_embeddings_token_embedding",
)  # fmt: skip
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 24, 48, 96]), max_size=5).filter(lambda shape: math.prod(shape) < 1e6)


@pytest.fixture(scope="module")
def small() -> UNet:
    return unet(TOY)


@settings(max_examples=100, deadline=None)
@given(file=st.dictionaries(st.tuples(st.sampled_from(ODD_LAYERS), st.sampled_from(PARTS)), SHAPES, max_size=12))
def test_odd_files_do_no_harm(small: UNet, encoder: ClipTextEncoder, file: dict[tuple[str, str], list[int]]) -> None:
    """Every tensor is used, unknown or misshapen, and what fits can be computed."""
    tensors = {f"{layer}.{part}": torch.full(shape, 0.5) for (layer, part), shape in file.items()}
    fitted = fit(tensors, {}, small, encoder)
    assert fitted.used + len(fitted.unknown) + len(fitted.misshapen) == len(tensors)
    assert set(fitted.unknown) | set(fitted.misshapen) <= tensors.keys()
    for network in (small, encoder):
        name = UNET if network is small else TEXT_ENCODER
        merged(network, changes_of(name, [Use(fitted, 1.0, 1.0)]))


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(KINDS), shapes=st.lists(SHAPES, min_size=12, max_size=12), dora=st.booleans(), seed=st.data()
)
def test_odd_layers_of_every_kind(
    small: UNet, encoder: ClipTextEncoder, kind: Kind, shapes: list[list[int]], dora: bool, seed: st.DataObject
) -> None:
    parts = sorted(seed.draw(st.sampled_from(kind.needs)) | kind.takes - {"oft_diag"})
    tensors = {part: torch.full(shape, 0.5) for part, shape in zip(parts, shapes, strict=False)}
    if dora:
        tensors["dora_scale"] = torch.ones(shapes[-1])
    try:
        found = change_of(Parts(tensors))
    except ValueError:
        return
    for shape in ((96, 96), (96, 96, 3, 3), (96,)):
        if found is not None and fits(found[0], shape):
            assert found[0].delta(torch.ones(shape)).shape == shape
