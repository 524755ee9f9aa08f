"""LoRA files in a model: what is merged, what is told, and that the base stays as it was."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from webui.conditioning.lora import LoraUse, a1111_hash, adapted, combined
from webui.errors import CheckpointError
from webui.model import Model
from webui.networks.layer_names import UNET, lora_targets


def lora_file(path: Path, model: Model, seed: int = 0, alpha: float = 2.0) -> Path:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, target in lora_targets(model.unet, model.text_encoder, convolutions=True).items():
        tensors[f"{name}.lora_down.weight"] = torch.randn(2, *target.shape[1:], generator=generator)
        tensors[f"{name}.lora_up.weight"] = torch.randn(target.shape[0], 2, generator=generator)
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)
    return path


def use(path: Path, text: float = 1.0, unet: float = 1.0, ranks: int | None = None) -> LoraUse:
    return LoraUse(path.stem, path, hashlib.sha256(path.read_bytes()).hexdigest(), text, unet, ranks)


def test_several_files_add_up_and_the_base_is_untouched(model: Model, tmp_path: Path) -> None:
    first, second = (lora_file(tmp_path / f"{seed}.safetensors", model, seed) for seed in (1, 2))
    networks = (model.unet, model.text_encoder)
    before = [{name: tensor.clone() for name, tensor in network.state_dict().items()} for network in networks]
    changed, applied = adapted(model, combined([use(first, 0.5, 0.25), use(second, 0.0, -1.0)]))
    for network, copied in zip(networks, before, strict=True):
        assert all(torch.equal(tensor, copied[name]) for name, tensor in network.state_dict().items())
    assert [file.problem for file in applied] == [None, None]
    alone = [adapted(model, [use(path)])[0] for path in (first, second)]
    for target in lora_targets(model.unet, model.text_encoder, convolutions=True).values():
        weights = (0.25, -1.0) if target.network == UNET else (0.5, 0.0)
        base = getattr(model, target.network).get_parameter(target.parameter)
        deltas = [getattr(one, target.network).get_parameter(target.parameter) - base for one in alone]
        expected = base + sum(weight * delta for weight, delta in zip(weights, deltas, strict=True))
        found = getattr(changed, target.network).get_parameter(target.parameter)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert changed.vae is model.vae and changed.tokenizer is model.tokenizer


def test_one_file_twice_is_one_file_of_both_weights_and_order_does_not_count(model: Model, tmp_path: Path) -> None:
    first, second = (lora_file(tmp_path / f"{seed}.safetensors", model, seed) for seed in (1, 2))
    twice = combined([use(first, 0.5, 0.25), use(second), use(first, 0.25, 0.5)])
    assert len(twice) == 2 and twice == combined([use(second), use(first, 0.75, 0.75)])
    assert combined([use(first), use(second)]) == combined([use(second), use(first)])


def test_what_was_left_out_is_told(model: Model, tmp_path: Path) -> None:
    name = "lora_unet_mid_block_attentions_0_proj_in"
    tensors = {
        f"{name}.lora_down.weight": torch.ones(1, 32, 1, 1),
        f"{name}.lora_up.weight": torch.ones(32, 1, 1, 1),
        "lora_unet_mid_block_attentions_0_proj_out.lora_down.weight": torch.ones(1, 64, 1, 1),
        "lora_unet_mid_block_attentions_0_proj_out.lora_up.weight": torch.ones(64, 1, 1, 1),
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(1.0),
    }
    path = tmp_path / "part.safetensors"
    save_file(tensors, path)
    _, (applied,) = adapted(model, [use(path)])
    assert applied.problem is not None
    assert applied.problem.startswith('Of the LoRA "part" 2 tensors were used, 2 have another shape (')
    assert "1 are not known here (lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha)" in applied.problem


def test_a_file_that_changes_nothing_is_an_error_with_the_counts(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "xl.safetensors"
    save_file({"lora_te2_x.lora_down.weight": torch.ones(1, 2), "lora_te2_x.lora_up.weight": torch.ones(2, 1)}, path)
    with pytest.raises(CheckpointError, match=r'"xl" changes nothing .* 0 tensors were used, 2 are not known here'):
        adapted(model, [use(path)])


def test_the_hash_that_automatic1111_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.arange(4.0)}, path)
    data = path.read_bytes()
    assert a1111_hash(path) == hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    save_file({"x": torch.arange(4.0)}, path, metadata={"sshs_model_hash": "abc123"})
    assert a1111_hash(path) == "abc123"
