from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL as TheirVAE
from safetensors.torch import save_file
from tiny_model import VAE, tiny_weights
from torch import Tensor

from webui.checkpoints import keys
from webui.device import choose
from webui.errors import CheckpointError
from webui.families import vae
from webui.networks.vae import VAEConfig

FP32 = choose("cpu", "fp32", 1)
WEIGHTS = {
    name.removeprefix(keys.VAE_PREFIX): tensor
    for name, tensor in tiny_weights().items()
    if name.startswith(keys.VAE_PREFIX)
}


def written(folder: Path, weights: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file(weights, folder / "x.safetensors", metadata=metadata)
    return folder / "x.safetensors"


@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae."])
def test_every_weight_arrives_from_below_any_prefix(tmp_path: Path, prefix: str) -> None:
    others = {"loss.logvar": torch.zeros(()), "model_ema.decay": torch.ones(()), "step": torch.ones(1)}
    path = written(tmp_path, {**{prefix + name: tensor for name, tensor in WEIGHTS.items()}, **others})
    loaded = vae.load(path, FP32, norm_groups=8)
    assert loaded.config == VAE
    assert all(torch.equal(tensor, WEIGHTS[name]) for name, tensor in loaded.state_dict().items())
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())


def test_the_vae_of_a_whole_checkpoint_is_taken(tiny_checkpoint: Path) -> None:
    loaded = vae.load(tiny_checkpoint, FP32, norm_groups=8)
    assert all(torch.equal(tensor, WEIGHTS[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_files_load(tmp_path: Path, stored: torch.dtype) -> None:
    path = written(tmp_path, {name: tensor.to(stored) for name, tensor in WEIGHTS.items()})
    loaded = vae.load(path, choose("cpu", "bf16", 1), norm_groups=8)
    name = "decoder.conv_in.weight"
    assert torch.equal(loaded.state_dict()[name], WEIGHTS[name].to(stored).to(torch.bfloat16))


@pytest.mark.parametrize("attention_names", ["new", "old"])
def test_diffusers_own_files_make_the_same_pictures(tmp_path: Path, attention_names: str) -> None:
    torch.manual_seed(0)
    theirs = TheirVAE(
        block_out_channels=(32, 64, 64),
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        layers_per_block=2,
        norm_num_groups=32,
    ).eval()
    weights = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    if attention_names == "old":
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            weights = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in weights.items()}
    ours = vae.load(written(tmp_path, weights), FP32)
    assert ours.config == VAEConfig(channels=(32, 64, 64), blocks=2)
    with torch.inference_mode():
        latent, pixels = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 32, 32) * 2 - 1
        assert torch.allclose(ours.decode(latent), theirs.decode(latent).sample, atol=1e-5)
        assert torch.allclose(ours.encode(pixels).mean, theirs.encode(pixels).latent_dist.mean, atol=1e-5)


def test_a_file_that_is_no_vae_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"x\.safetensors is no VAE: it has no encoder and decoder"):
        vae.load(written(tmp_path, {"lora_unet.lora_up.weight": torch.ones(2, 2)}), FP32)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    rest = {name: tensor for name, tensor in WEIGHTS.items() if name != "decoder.norm_out.bias"}
    with pytest.raises(CheckpointError, match=r"x\.safetensors: tensors 1 missing \(decoder\.norm_out\.bias\)"):
        vae.load(written(tmp_path, rest), FP32, norm_groups=8)
    rest = {name: tensor for name, tensor in WEIGHTS.items() if not name.startswith("post_quant_conv")}
    with pytest.raises(CheckpointError, match=r"x\.safetensors cannot be used: The VAE is incomplete"):
        vae.load(written(tmp_path, rest), FP32, norm_groups=8)


def test_norm_groups_come_from_the_file_when_it_tells_them(tmp_path: Path) -> None:
    path = written(tmp_path, WEIGHTS, {"starter.config": json.dumps({"vae": {"norm_groups": 8}})})
    assert vae.load(path, FP32).config == VAE
