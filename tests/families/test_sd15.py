from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import CONFIG, tiny_weights, write_checkpoint
from torch import Tensor

from webui import families
from webui.checkpoints.formats import BUILT_IN
from webui.device import choose
from webui.diffusion.prediction import Prediction
from webui.errors import CheckpointError
from webui.families.sd15 import StableDiffusion1
from webui.model import Model

KNOWN = {"Stable Diffusion 1": StableDiffusion1()}
FP32 = choose("cpu", "fp32", 1)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return tiny_weights()


def load(path: Path, precision: str = "fp32") -> Model:
    return families.load(BUILT_IN.open(path), KNOWN, choose("cpu", precision, 1))


def state(model: Model) -> dict[str, Tensor]:
    return {**model.unet.state_dict(), **model.vae.state_dict(), **model.text_encoder.state_dict()}


def test_every_weight_arrives(tiny_checkpoint: Path, weights: dict[str, Tensor]) -> None:
    model = load(tiny_checkpoint)
    loaded = {
        "model.diffusion_model.": model.unet,
        "first_stage_model.": model.vae,
        "cond_stage_model.transformer.": model.text_encoder,
    }
    count = 0
    for prefix, network in loaded.items():
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, weights[prefix + name]), name
            count += 1
    assert count == len(weights)
    assert model.native_size == 64 and model.prediction is Prediction.EPSILON
    assert not any(parameter.requires_grad for parameter in model.unet.parameters())


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_half_precision_files_load(tmp_path: Path, weights: dict[str, Tensor], stored: torch.dtype) -> None:
    path = write_checkpoint(tmp_path / "half.safetensors", {name: w.to(stored) for name, w in weights.items()})
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        model = load(path, precision)
        name = "time_embed.0.weight"
        assert torch.equal(model.unet.state_dict()[name], weights[f"model.diffusion_model.{name}"].to(stored).to(dtype))


def test_training_state_beside_the_weights_is_ignored(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    extra = {
        "model_ema.diffusion_modelinput_blocks00weight": torch.full((3,), torch.nan),
        "model_ema.decay": torch.tensor(0.9999),
        "betas": torch.ones(1000),
        "first_stage_model.loss.discriminator.main.0.weight": torch.ones(8),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
    }
    model = load(write_checkpoint(tmp_path / "ema.safetensors", {**weights, **extra}))
    plain = load(write_checkpoint(tmp_path / "plain.safetensors", weights))
    ours, theirs = state(model), state(plain)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_ckpt_of_the_same_weights_is_the_same_model(
    tmp_path: Path, weights: dict[str, Tensor], as_zip: bool, wrapped: bool
) -> None:
    others = {"model_ema.diffusion_modelinput_blocks00weight": torch.full((3,), torch.nan), "betas": torch.ones(9)}
    data = {"starter.config": json.dumps(CONFIG), **({"state_dict": weights} if wrapped else weights), "global_step": 3}
    if wrapped:
        data["state_dict"] = {**weights, **others}
    path = tmp_path / "x.ckpt"
    torch.save(data, path, _use_new_zipfile_serialization=as_zip)
    ours, theirs = state(load(path)), state(load(write_checkpoint(tmp_path / "x.safetensors", weights)))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_text_encoder_without_its_first_level_loads(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    prefix = "cond_stage_model.transformer."
    flat = {name.replace(f"{prefix}text_model.", prefix): tensor for name, tensor in weights.items()}
    model = load(write_checkpoint(tmp_path / "flat.safetensors", flat))
    name = "text_model.final_layer_norm.weight"
    assert torch.equal(model.text_encoder.state_dict()[name], weights[prefix + name])


def test_markers_choose_prediction_and_noise_table(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    marked = write_checkpoint(
        tmp_path / "v.safetensors", {**weights, "v_pred": torch.empty(0), "ztsnr": torch.empty(0)}
    )
    model = load(marked)
    assert model.prediction is Prediction.V
    assert model.noise_table.sigma_max > 4000
    stated = write_checkpoint(
        tmp_path / "s.safetensors", weights, {"modelspec.prediction_type": "v", "starter.config": json.dumps(CONFIG)}
    )
    assert load(stated).prediction is Prediction.V


def test_every_missing_weight_is_reported_by_name(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    names = [
        *random.Random(0).sample(sorted(weights), 30),
        "model.diffusion_model.input_blocks.0.0.weight",
        "model.diffusion_model.out.2.weight",
        "model.diffusion_model.time_embed.0.weight",
        "first_stage_model.post_quant_conv.weight",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    ]
    for name in names:
        rest = {other: tensor for other, tensor in weights.items() if other != name}
        path = write_checkpoint(tmp_path / "missing.safetensors", rest)
        with pytest.raises(CheckpointError) as caught:
            load(path)
        assert len(str(caught.value)) < 1000


def test_every_weight_of_another_shape_is_reported(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    for name in random.Random(1).sample(sorted(weights), 30):
        bent = {**weights, name: torch.ones(*weights[name].shape, 2)}
        with pytest.raises(CheckpointError):
            load(write_checkpoint(tmp_path / "bent.safetensors", bent))


def test_counts_and_names_are_in_the_sentence(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    changed = {name: tensor for name, tensor in weights.items() if "quant_conv.bias" not in name}
    changed["first_stage_model.decoder.conv_out.bias"] = torch.ones(4)
    with pytest.raises(CheckpointError) as caught:
        load(write_checkpoint(tmp_path / "x.safetensors", changed))
    assert "2 missing (quant_conv.bias, post_quant_conv.bias)" in str(caught.value)
    assert "1 of another shape (decoder.conv_out.bias is [4], expected [3])" in str(caught.value)


def test_whole_numbers_are_no_weights(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    name = "model.diffusion_model.out.2.weight"
    quantised = {**weights, name: weights[name].to(torch.int8)}
    with pytest.raises(CheckpointError, match=f"{name} as I8"):
        load(write_checkpoint(tmp_path / "x.safetensors", quantised))


@pytest.mark.parametrize(
    "config",
    [
        {"unet": {"num_heads": "many"}},
        {"unet": {"norm_groups": -3}},
        {"unet": {"norm_groups": 7}},
        {"vae": {"norm_groups": 10**30}},
        {"text": {"heads": 0.5}},
        {"text": {"heads": 5}},
        {"scale_factor": "x"},
        {"scale_factor": 0},
        {"scale_factor": float("nan")},
        {"latent_rgb": 3},
        {"latent_rgb": {"matrix": [[1, 2, 3]]}},
        {"latent_rgb": {"matrix": [[1, 2, 3]] * 4, "bias": "abc"}},
    ],
    ids=str,
)
def test_impossible_metadata_is_refused(tmp_path: Path, weights: dict[str, Tensor], config: dict[str, Any]) -> None:
    path = write_checkpoint(tmp_path / "x.safetensors", weights, {"starter.config": json.dumps({**CONFIG, **config})})
    with pytest.raises(CheckpointError):
        load(path)


@pytest.mark.parametrize("stated", ["huge", -8, 0, 100, 10**9, None, 64.0, True])
def test_a_native_size_that_is_none_is_512(tmp_path: Path, weights: dict[str, Tensor], stated: Any) -> None:
    small = {"model.diffusion_model.out.2.weight": weights["model.diffusion_model.out.2.weight"]}
    path = write_checkpoint(tmp_path / "x.safetensors", small, {"starter.config": json.dumps({"native_size": stated})})
    assert StableDiffusion1().native_size(BUILT_IN.read_header(path)) == 512


@pytest.mark.parametrize("text", ["", "[", "[]", "5", '"text"', "[" * 100_000])
def test_metadata_that_is_no_record_counts_as_none(tmp_path: Path, text: str) -> None:
    path = write_checkpoint(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {"starter.config": text})
    assert StableDiffusion1().native_size(BUILT_IN.read_header(path)) == 512


def test_a_file_of_no_known_family_says_where_it_may_belong(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "lora.safetensors", {"lora_unet_x.alpha": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"lora\.safetensors is no checkpoint of a known family.*LoRA"):
        load(path)


def test_linear_projections_are_another_family(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    sd2 = {name: w.flatten(1) if name.endswith("proj_in.weight") else w for name, w in weights.items()}
    path = write_checkpoint(tmp_path / "sd2.safetensors", sd2)
    assert not StableDiffusion1().detect(BUILT_IN.read_header(path))
