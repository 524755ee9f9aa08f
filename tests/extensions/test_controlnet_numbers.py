"""Whole pictures with a unit beside those that diffusers' networks make of the same random weights: within 1/255."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archives import archive_formats, write_archive
from controlnet_bench import IMAGE, MASK, Bench, apart, as_tensor, of_diffusers
from controlnet_parts import part
from oracles import random_weights, shapes_of
from torch import Tensor

from webui.checkpoints.formats import BUILT_IN
from webui.conditioning import Pictures
from webui.model import Model
from webui.networks import t2i_adapter
from webui.networks.clip_image import ClipImageConfig, ClipImageEncoder
from webui.networks.controlnet import ControlNet, ControlNetConfig, to_diffusers
from webui.networks.t2i_adapter import T2IAdapter, T2IAdapterConfig
from webui.networks.unet import UNet


def meta(make: Any) -> Any:
    with torch.device("meta"):
        return make()


def control_weights(unet: UNet, seed: int = 1) -> dict[str, Tensor]:
    return random_weights(shapes_of(meta(lambda: ControlNet(ControlNetConfig.of(unet.config)))), seed)


def diffusers_controlnet(unet: UNet, weights: dict[str, Tensor]) -> Any:
    from diffusers import ControlNetModel

    config = unet.config
    theirs = meta(
        lambda: ControlNetModel(
            in_channels=config.in_channels,
            block_out_channels=config.channels,
            down_block_types=["CrossAttnDownBlock2D" if any(d) else "DownBlock2D" for d in config.input_depths],
            layers_per_block=len(config.input_depths[0]),
            cross_attention_dim=config.context_channels,
            attention_head_dim=[config.heads_at(width) for width in config.channels],
            norm_num_groups=config.norm_groups,
        )
    )
    names = to_diffusers(weights, config)
    theirs.load_state_dict({names[name]: tensor for name, tensor in weights.items()}, assign=True)
    return theirs.eval()


def controlled(model: Model, theirs: Any, hint: Tensor, weight: float) -> Model:
    def ask(unet: Any, x: Tensor, timesteps: Tensor, context: Tensor) -> Any:
        skips, middle = theirs(
            x, timesteps, context, hint.expand(len(x), -1, -1, -1), conditioning_scale=weight, return_dict=False
        )
        return unet(x, timesteps, context, down_block_additional_residuals=skips, mid_block_additional_residual=middle)

    return of_diffusers(model, ask)


@pytest.mark.parametrize("names", ["compvis", "prefixed", "diffusers"])
def test_controlnet(bench: Bench, names: str) -> None:
    weights = control_weights(bench.model.unet)
    saved = weights
    if names == "prefixed":
        saved = {f"control_model.{name}": tensor for name, tensor in weights.items()}
    if names == "diffusers":
        theirs_by_ours = to_diffusers(weights, bench.model.unet.config)
        saved = {theirs_by_ours[name]: tensor for name, tensor in weights.items()}
    bench.save("controlnet", "control", saved)
    theirs = diffusers_controlnet(bench.model.unet, weights)
    expected = bench.make(model=controlled(bench.model, theirs, as_tensor(bench.stored[IMAGE]), 0.7))
    found = bench.make(bench.unit(model="control", weight=0.7))
    assert apart(found, expected) <= 1
    assert apart(found, bench.make()) > 8  # the unit is seen


def test_a_controlnet_for_inpainting_reads_minus_one_where_it_paints(bench: Bench) -> None:
    weights = control_weights(bench.model.unet)
    bench.save("controlnet", "control", weights)
    hint = as_tensor(bench.stored[IMAGE])
    hint[:, :, :, :32] = -1
    theirs = diffusers_controlnet(bench.model.unet, weights)
    expected = bench.make(model=controlled(bench.model, theirs, hint, 1.0))
    found = bench.make(bench.unit(model="control", module="inpaint_global_harmonious", mask=MASK))
    assert apart(found, expected) <= 1


def test_two_units_add_up(bench: Bench) -> None:
    weights = control_weights(bench.model.unet)
    bench.save("controlnet", "control", weights)
    twice = bench.make(bench.unit(model="control", weight=0.3), bench.unit(model="control", weight=0.4))
    assert apart(twice, bench.make(bench.unit(model="control", weight=0.7))) <= 1


def low_rank(unet: UNet, rank: int = 3) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A Control-LoRA's tensors, and those of the ControlNet that it stands for."""
    full, base = control_weights(unet), unet.state_dict()
    generator = torch.Generator().manual_seed(8)
    lora: dict[str, Tensor] = {"lora_controlnet": torch.zeros(1)}
    for name, tensor in full.items():
        if name in base and name.endswith(".weight") and tensor.ndim > 1:
            stem, inputs = name.removesuffix(".weight"), tensor[0].numel()
            up = torch.randn(tensor.shape[0], rank, generator=generator) * 0.1
            down = torch.randn(rank, inputs, generator=generator) * 0.1
            if tensor.ndim == 4 and tensor.shape[2] == 3:
                up, down = up[:, :, None, None], down.view(rank, *tensor.shape[1:])
            lora |= {f"{stem}.up": up, f"{stem}.down": down}
            full[name] = base[name] + (up.flatten(1) @ down.flatten(1)).view(tensor.shape)
        else:
            lora[name] = tensor
    return lora, full


def test_a_control_lora_is_the_controlnet_that_it_stands_for(bench: Bench) -> None:
    lora, full = low_rank(bench.model.unet)
    bench.save("controlnet", "lora", lora)
    bench.save("controlnet", "full", full)
    before = {name: tensor.clone() for name, tensor in bench.model.unet.state_dict().items()}
    found, expected = (bench.make(bench.unit(model=name)) for name in ("lora", "full"))
    assert apart(found, expected) <= 1 and apart(found, bench.make()) > 8
    assert all(torch.equal(tensor, before[name]) for name, tensor in bench.model.unet.state_dict().items())


def test_a_controlnet_kept_as_a_difference(bench: Bench) -> None:
    weights, base = control_weights(bench.model.unet), bench.model.unet.state_dict()
    bench.save("controlnet", "whole", weights)
    shared = {name: tensor - base[name] if name in base else tensor for name, tensor in weights.items()}
    bench.save("controlnet", "difference", {**shared, "difference": torch.zeros(1)})
    found, expected = (bench.make(bench.unit(model=name)) for name in ("difference", "whole"))
    assert apart(found, expected) <= 1


def adapted(model: Model, features: list[Tensor]) -> Model:
    def ask(unet: Any, x: Tensor, timesteps: Tensor, context: Tensor) -> Any:
        rows = [feature.expand(len(x), -1, -1, -1) for feature in features]
        return unet(x, timesteps, context, down_intrablock_additional_residuals=rows)

    return of_diffusers(model, ask)


@pytest.mark.parametrize("names", ["ours", "diffusers"])
@pytest.mark.parametrize("grey", [False, True])
def test_t2i_adapter(bench: Bench, names: str, grey: bool) -> None:
    from diffusers import T2IAdapter as Theirs

    channels = bench.model.unet.config.channels
    config = T2IAdapterConfig(channels=channels, hint_channels=1 if grey else 3)
    weights = random_weights(shapes_of(meta(lambda: T2IAdapter(config))), 2)
    other = t2i_adapter.to_diffusers(list(weights))
    renamed = {other[name]: tensor for name, tensor in weights.items()}
    bench.save("controlnet", "adapter", renamed if names == "diffusers" else weights)
    theirs = Theirs(in_channels=config.hint_channels, channels=list(channels), num_res_blocks=2)
    theirs.load_state_dict(renamed)
    hint = as_tensor(bench.stored[IMAGE])
    with torch.no_grad():
        features = [0.8 * one for one in theirs(hint.mean(1, keepdim=True) if grey else hint)]
    expected = bench.make(model=adapted(bench.model, features))
    found = bench.make(bench.unit(model="adapter", weight=0.8))
    assert apart(found, expected) <= 1 and apart(found, bench.make()) > 8


@pytest.mark.parametrize("names", ["original", "diffusers"])
def test_light_t2i_adapter(bench: Bench, names: str) -> None:
    from diffusers import T2IAdapter as Theirs

    channels = bench.model.unet.config.channels
    theirs = Theirs(in_channels=3, channels=list(channels), num_res_blocks=4, adapter_type="light_adapter")
    weights = random_weights({name: tuple(t.shape) for name, t in theirs.state_dict().items()}, 2)
    theirs.load_state_dict(weights)
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("adapter.body.2.")}
    original = {name.removeprefix("adapter.").replace(".resnets.", ".body."): t for name, t in weights.items()}
    bench.save("controlnet", "light", weights if names == "diffusers" else original)
    with torch.no_grad():
        features = list(theirs(as_tensor(bench.stored[IMAGE])))[:2]  # theirs has a level more, as wide as the last
    expected = bench.make(model=adapted(bench.model, features))
    assert apart(bench.make(bench.unit(model="light")), expected) <= 1


CLIP = ClipImageConfig(width=64, layers=3, heads=1, mlp_width=96, image_size=28, patch=14, projection=40)
CONTEXT = 32


def clip_weights() -> dict[str, Tensor]:
    return random_weights(shapes_of(meta(lambda: ClipImageEncoder(CLIP))), 5)


def transformers_vision(weights: dict[str, Tensor], activation: str = "quick_gelu") -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    theirs = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=CLIP.width,
            intermediate_size=CLIP.mlp_width,
            num_hidden_layers=CLIP.layers,
            num_attention_heads=CLIP.heads,
            image_size=CLIP.image_size,
            patch_size=CLIP.patch,
            projection_dim=CLIP.projection,
            hidden_act=activation,
        )
    )
    theirs.load_state_dict(weights, strict=False)
    return theirs.eval()


def clip_pixels(bench: Bench) -> Tensor:
    from transformers import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": CLIP.image_size}, crop_size={"height": CLIP.image_size, "width": CLIP.image_size}
    )
    return processor(images=bench.stored[IMAGE], return_tensors="pt").pixel_values


def pairs(unet: UNet, seed: int = 6) -> dict[str, Tensor]:
    """The keys' and values' projections, numbered as tencent-ailab/IP-Adapter does."""
    sites = part("ip_adapter").cross_attentions(unet)
    modules = dict(unet.named_modules())
    shapes = {}
    for number, site in enumerate(sites):
        rows = modules[site].to_k.weight.shape[0]
        shapes |= {f"ip_adapter.{2 * number + 1}.to_{kind}_ip.weight": (rows, CONTEXT) for kind in "kv"}
    return random_weights(shapes, seed)


def plain_projection() -> dict[str, Tensor]:
    shapes = {"proj.weight": (4 * CONTEXT, CLIP.projection), "proj.bias": (4 * CONTEXT,)}
    return random_weights({**shapes, "norm.weight": (CONTEXT,), "norm.bias": (CONTEXT,)}, 7)


def plus_projection(inner: int = 48, heads: int = 2, queries: int = 5) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (1, queries, inner),
        "proj_in.weight": (inner, CLIP.width),
        "proj_in.bias": (inner,),
        "proj_out.weight": (CONTEXT, inner),
        "proj_out.bias": (CONTEXT,),
        "norm_out.weight": (CONTEXT,),
        "norm_out.bias": (CONTEXT,),
    }
    for layer in range(4):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            shapes |= {f"layers.{layer}.{norm}.{kind}": (inner,) for kind in ("weight", "bias")}
        shapes[f"layers.{layer}.0.to_q.weight"] = (64 * heads, inner)
        shapes[f"layers.{layer}.0.to_kv.weight"] = (128 * heads, inner)
        shapes[f"layers.{layer}.0.to_out.weight"] = (inner, 64 * heads)
        shapes[f"layers.{layer}.1.1.weight"] = (4 * inner, inner)
        shapes[f"layers.{layer}.1.3.weight"] = (inner, 4 * inner)
    return random_weights(shapes, 7)


def face_projection() -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {"proj.0.weight": (64, 64), "proj.0.bias": (64,)}
    shapes |= {"proj.2.weight": (CONTEXT, 64), "proj.2.bias": (CONTEXT,)}
    return random_weights({**shapes, "proj.3.weight": (CONTEXT,), "proj.3.bias": (CONTEXT,)}, 7)


@pytest.mark.parametrize("kind", ["plain", "plus", "full face"])
def test_ip_adapter(bench: Bench, kind: str) -> None:
    from oracles import diffusers_unet

    projection = {"plain": plain_projection, "plus": plus_projection, "full face": face_projection}[kind]()
    weights = {f"image_proj.{name}": tensor for name, tensor in projection.items()} | pairs(bench.model.unet)
    bench.save("controlnet", "ip", weights)
    bench.save("clip_vision", "encoder", clip_weights())
    vision, pixels = transformers_vision(clip_weights()), clip_pixels(bench)
    with torch.no_grad():
        if kind == "plain":
            vector = vision(pixels).image_embeds
            embeds = torch.cat([vector, torch.zeros_like(vector)])[:, None]
        else:
            both = torch.cat([pixels, torch.zeros_like(pixels)])
            embeds = vision(both, output_hidden_states=True).hidden_states[-2][:, None]
    theirs = diffusers_unet(bench.model.unet)
    numbered = {name.removeprefix("ip_adapter."): tensor for name, tensor in pairs(bench.model.unet).items()}
    theirs._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": numbered}])
    for processor in theirs.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [0.6]

    def ask(unet: Any, x: Tensor, timesteps: Tensor, context: Tensor) -> Any:
        assert len(x) == 2  # the prompt's row first
        return unet(x, timesteps, context, added_cond_kwargs={"image_embeds": [embeds]})

    expected = bench.make(model=of_diffusers(bench.model, ask, theirs))
    found = bench.make(bench.unit(model="ip", module="ip-adapter-auto", weight=0.6))
    assert apart(found, expected) <= 1
    assert apart(found, bench.make()) > 8


@pytest.mark.parametrize("size", [(64, 64), (50, 91), (120, 40)])
def test_clip_sees_the_picture_as_transformers_prepares_it(bench: Bench, size: tuple[int, int]) -> None:
    from controlnet_bench import picture

    bench.stored[IMAGE] = picture(*size)
    found = part("clip_vision").picture_tensor(bench.stored[IMAGE], CLIP.image_size, bench.model.compute)
    assert torch.allclose(found, clip_pixels(bench), atol=1e-5)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_clip_answers_as_transformers(bench: Bench, activation: str) -> None:
    from dataclasses import replace

    clip_vision = part("clip_vision")
    ours = ClipImageEncoder(replace(CLIP, quick_gelu=activation == "quick_gelu"))
    ours.load_state_dict(clip_weights())
    theirs, pixels = transformers_vision(clip_weights(), activation), clip_pixels(bench)
    with torch.no_grad():
        told = theirs(pixels, output_hidden_states=True)
        assert torch.allclose(clip_vision.vector(ours, pixels), told.image_embeds, atol=1e-5)
        assert torch.allclose(clip_vision.last_but_one(ours, pixels), told.hidden_states[-2], atol=1e-5)


def test_an_encoder_in_open_clips_names_is_the_same(bench: Bench) -> None:
    weights = clip_weights()
    renamed: dict[str, Tensor] = {
        "visual.class_embedding": weights["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": weights["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": weights["vision_model.embeddings.patch_embedding.weight"],
        "visual.proj": weights["visual_projection.weight"].T,
    }
    for ours, theirs in (("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post")):
        renamed |= {f"visual.{theirs}.{k}": weights[f"vision_model.{ours}.{k}"] for k in ("weight", "bias")}
    for number in range(CLIP.layers):
        source, target = f"vision_model.encoder.layers.{number}", f"visual.transformer.resblocks.{number}"
        for kind in ("weight", "bias"):
            joined = [weights[f"{source}.self_attn.{one}_proj.{kind}"] for one in "qkv"]
            renamed[f"{target}.attn.in_proj_{kind}"] = torch.cat(joined)
            for ours, theirs in (
                ("self_attn.out_proj", "attn.out_proj"),
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                renamed[f"{target}.{theirs}.{kind}"] = weights[f"{source}.{ours}.{kind}"]
    load = part("clip_vision").load_encoder
    ours = load(BUILT_IN.open(bench.save("clip_vision", "hf", weights)), bench.model.compute)
    theirs = load(BUILT_IN.open(bench.save("clip_vision", "open", renamed)), bench.model.compute)
    pixels = clip_pixels(bench)
    with torch.no_grad():
        assert torch.equal(ours(pixels), theirs(pixels))


def test_published_encoders_have_their_published_sizes() -> None:
    """ViT-H/14 of LAION: 1280 wide, 16 heads, exact GELU; ViT-L/14 of OpenAI: 1024 wide, 16 heads, quick GELU."""
    huge = ClipImageConfig(1280, 32, 16, 5120, 224, 14, 1024, quick_gelu=False)
    for config in (huge, ClipImageConfig()):
        shapes = {n: tuple(t.shape) for n, t in meta(lambda c=config: ClipImageEncoder(c)).state_dict().items()}
        assert part("clip_vision").config_of(shapes) == config


def test_every_weight_of_a_unit_is_from_zero_on_seen(bench: Bench) -> None:
    bench.save("controlnet", "control", control_weights(bench.model.unet))
    assert np.array_equal(bench.make(bench.unit(model="control", weight=0.0)), bench.make())


def test_pickled_files_hold_the_same_networks(bench: Bench) -> None:
    """``.pth`` with a state_dict, and an IP-Adapter's ``.bin`` of nested tables, read without running anything."""
    unet, compute = bench.model.unet, bench.model.compute
    weights = control_weights(unet)
    torch.save({"state_dict": {f"control_model.{n}": t for n, t in weights.items()}}, bench.folder / "c.pth")
    loaded = part("networks").load_controlnet(BUILT_IN.open(bench.folder / "c.pth"), unet, compute).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())
    numbered = {name.removeprefix("ip_adapter."): tensor for name, tensor in pairs(unet).items()}
    torch.save({"image_proj": plain_projection(), "ip_adapter": numbered}, bench.folder / "ip.bin")
    adapter = part("ip_adapter").load_adapter(BUILT_IN.open(bench.folder / "ip.bin"), compute)
    assert torch.equal(adapter.pairs[0][0], numbered["1.to_k_ip.weight"])
    assert torch.equal(adapter.projection.proj.weight, plain_projection()["proj.weight"])


class ArchiveBench(Bench):
    """A bench whose model files are in a form that an extension reads."""

    def pictures(self, second_pass: bool = False) -> Pictures:
        formats = archive_formats(self.folder / "extensions")
        return replace(super().pictures(second_pass), formats=formats, model_file=self._archive)

    def _archive(self, kind: str, name: str) -> Path:
        return self.folder / kind / f"{name}.npz"


def test_a_controlnet_in_a_form_of_an_extension_steers_alike(bench: Bench) -> None:
    weights = control_weights(bench.model.unet)
    bench.save("controlnet", "control", weights)
    write_archive(bench.folder / "controlnet" / "control.npz", weights)
    unit = bench.unit(model="control", weight=0.7)
    expected = bench.make(unit)
    assert np.array_equal(ArchiveBench(bench.model, bench.folder).make(unit), expected)
    assert apart(expected, bench.make()) > 8  # the unit is seen
