from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from training_cases import Begin

from webui.conditioning.lora import LoraUse, adapted
from webui.errors import RequestError
from webui.networks.adapters.low_rank import LowRank
from webui.networks.layer_names import TEXT_ENCODER, UNET, lora_targets
from webui.training.export import TrainingRecipe, export
from webui.training.kinds.lora import LoraOptions, LoraTask
from webui.training.loop import generator

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "text": {"train_text": True, "alpha": 2.0},
    "everything": {"train_text": True, "convolutions": True, "rank": 3},
    "text alone": {"train_text": True, "unet": False},
}
each_way = pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)


def shake(task: LoraTask, seed: int = 5) -> None:
    """Give the pairs values that a training may have come to."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in task.trained.values():
            tensor.copy_((0.2 * torch.randn(tensor.shape, generator=random)).half())  # as a file holds it


def loss(task: LoraTask, step: int = 0, items: tuple[int, ...] = (0, 1, 2, 3)) -> Tensor:
    return task.loss(items, step, generator(0, step, 0))["loss"]


def exported(task: LoraTask, path: Path) -> Path:
    recipe = TrainingRecipe(task.materials.request, "d" * 64, 4, "tiny", "0" * 64, 2)
    return export(path, task.weights({name: tensor.float() for name, tensor in task.trained.items()}), recipe)


def inputs(task: LoraTask) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 8, 8, generator=random)
    return x, torch.tensor([900.0, 30.0]), torch.randn(2, 7, 32, generator=random)


@each_way
def test_it_begins_as_the_base_and_stays_beside_it(options: dict[str, Any], begin: Begin) -> None:
    task, base = begin("lora", options), begin("checkpoint")
    with torch.no_grad():
        torch.testing.assert_close(loss(task), loss(base))
    frozen = {
        f"{number}.{name.replace('.layer.', '.')}": tensor
        for number, part in enumerate((task.model.unet, task.model.text_encoder))
        for name, tensor in part.named_parameters()
        if not name.endswith((".down", ".up"))
    }
    theirs = {
        f"{number}.{name}": tensor
        for number, part in enumerate((base.model.unet, base.model.text_encoder))
        for name, tensor in part.named_parameters()
    }
    assert frozen.keys() == theirs.keys()
    loss(task).backward()
    for name, tensor in frozen.items():
        assert not tensor.requires_grad and tensor.grad is None and torch.equal(tensor, theirs[name])
    learning = [tensor for tensor in task.trained.values() if tensor.grad is not None]
    assert len(learning) == len(task.trained)


@each_way
def test_loss_and_gradients_are_those_of_the_changed_weights(options: dict[str, Any], begin: Begin) -> None:
    """W + alpha / r * up @ down as one dense weight, differentiated by autograd."""
    task, base = begin("lora", options), begin("checkpoint", {"train_text": bool(options.get("train_text"))})
    shake(task)
    base.model.unet.requires_grad_(False)
    base.model.text_encoder.requires_grad_(False)
    targets = lora_targets(base.model.unet, base.model.text_encoder, convolutions=True)
    networks = {UNET: base.model.unet, TEXT_ENCODER: base.model.text_encoder}
    pairs = {name: tensor.detach().clone().requires_grad_() for name, tensor in task.trained.items()}
    for name in {name.rpartition(".")[0] for name in pairs}:
        target = targets[name.split(".")[1]]
        path, _, attribute = target.parameter.rpartition(".")
        layer = networks[target.network].get_submodule(path)
        pair = LowRank(pairs[f"{name}.down"], pairs[f"{name}.up"])
        changed = layer.weight.detach() + task.options.scale * (pair.up.flatten(1) @ pair.down.flatten(1)).view_as(
            layer.weight
        )
        del layer._parameters[attribute]
        layer.weight = changed
    expected, found = loss(base), loss(task)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    wanted = torch.autograd.grad(expected, list(pairs.values()))
    own = torch.autograd.grad(found, list(task.trained.values()))
    whole = torch.cat([tensor.flatten() for tensor in wanted])
    difference = torch.cat([(a - b).flatten() for a, b in zip(own, wanted, strict=True)])
    assert difference.norm() < 1e-5 * whole.norm()


@each_way
def test_the_file_gives_the_same_network_here(options: dict[str, Any], begin: Begin, tmp_path: Path) -> None:
    task, base = begin("lora", options), begin("checkpoint")
    shake(task)
    path = exported(task, tmp_path / "made.safetensors")
    changed, applied = adapted(base.model, [LoraUse("made", path, "0" * 64, 1.0, 1.0)])
    assert applied[0].problem is None and applied[0].used == 3 * len(task.trained) // 2
    tokens = torch.arange(300, 377)[None]
    with torch.no_grad():
        torch.testing.assert_close(task.model.unet(*inputs(task)), changed.unet(*inputs(task)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(task.model.text_encoder(tokens), changed.text_encoder(tokens), rtol=1e-4, atol=1e-5)
        moves = not torch.equal(changed.unet(*inputs(task)), base.model.unet(*inputs(task)))
        assert moves is task.options.unet


@pytest.mark.parametrize("options", [{"alpha": 2.0}, {"convolutions": True}], ids=["alpha", "convolutions"])
def test_the_file_gives_the_same_network_in_diffusers_and_peft(
    options: dict[str, Any], begin: Begin, tmp_path: Path
) -> None:
    from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader
    from oracles import diffusers_unet

    task, base = begin("lora", options), begin("checkpoint")
    shake(task)
    path = exported(task, tmp_path / "made.safetensors")
    theirs = diffusers_unet(copy.deepcopy(base.model.unet))
    state, alphas = Loader.lora_state_dict(load_file(path), unet_config=theirs.config)
    Loader.load_lora_into_unet(state, network_alphas=alphas, unet=theirs, adapter_name="made")
    with torch.no_grad():
        found, expected = task.model.unet(*inputs(task)), theirs(*inputs(task)).sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_names_sizes_and_metadata_are_kohyas(begin: Begin, tmp_path: Path) -> None:
    options = {"rank": 4, "alpha": 1.0, "train_text": True}
    task = begin("lora", options, data={"prefix": "sks, "}, name="subject")
    with safe_open(exported(task, tmp_path / "made.safetensors"), "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    layers = {name.partition(".")[0] for name in tensors}
    base = begin("checkpoint").model
    assert layers == set(lora_targets(base.unet, base.text_encoder))
    assert {name.partition(".")[2] for name in tensors} == {"lora_down.weight", "lora_up.weight", "alpha"}
    query = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    assert tensors[f"{query}.lora_down.weight"].shape == (4, 32)
    assert tensors[f"{query}.lora_up.weight"].shape == (16, 4)
    assert tensors[f"{query}.alpha"] == 1.0 and tensors[f"{query}.alpha"].shape == ()
    projection = "lora_unet_down_blocks_0_attentions_0_proj_in"
    assert tensors[f"{projection}.lora_down.weight"].shape == (4, 16, 1, 1)
    assert tensors[f"{projection}.lora_up.weight"].shape == (16, 4, 1, 1)
    assert "lora_te_text_model_encoder_layers_1_self_attn_q_proj" in layers
    expected = {
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.title": "subject",
        "modelspec.trigger_phrase": "sks",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "1",
        "ss_base_model_version": "sd_v1",
        "ss_output_name": "subject",
        "ss_num_train_images": "4",
    }
    assert expected.items() <= metadata.items()
    (tags,) = json.loads(metadata["ss_tag_frequency"]).values()
    assert tags["square"] == 2 and tags["sks"] == 4
    assert json.loads(metadata["webui.training"])["request"]["options"] == options


def test_first_values_are_the_seeds(begin: Begin) -> None:
    first, again, other = begin("lora"), begin("lora"), begin("lora", seed=1)
    for name, tensor in first.initial.items():
        assert torch.equal(tensor, again.initial[name])
        if name.endswith(".up"):
            assert not tensor.any()
        else:
            bound = tensor[0].numel() ** -0.5
            assert 0.9 * bound < tensor.abs().max() <= bound
            assert not torch.equal(tensor, other.initial[name])


def test_half_precision_keeps_exact_first_values_and_is_near(begin: Begin) -> None:
    exact, half = begin("lora"), begin("lora", precision="bf16")
    assert {tensor.dtype for tensor in half.trained.values()} == {torch.bfloat16}
    assert all(torch.equal(tensor, exact.initial[name]) for name, tensor in half.initial.items())
    shake(exact)
    shake(half)
    with torch.no_grad():
        assert abs(loss(half) / loss(exact) - 1) < 0.1
    loss(exact).backward()
    loss(half).backward()
    ours, theirs = (
        torch.cat([tensor.grad.float().flatten() for tensor in task.trained.values()]) for task in (half, exact)
    )
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.98


@pytest.mark.parametrize("kind", ["lora", "checkpoint", "embedding"])
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_dreambooth_is_the_papers_loss(kind: str, weight: float, begin: Begin, painted: Path) -> None:
    """Ruiz et al. 2022, equation 2: the subject's error plus lambda times that of the class, here over one batch."""
    folders = {"class_folder": str(painted / "general"), "class_weight": weight}
    task = begin(kind, data=folders)
    is_class = [item.is_class for item in task.materials.data.items]
    assert is_class == [False] * 4 + [True] * 2
    batch = (0, 4, 2, 5)
    asked, shown = [], task.objective.loss

    def spy(question: Any, answer: Tensor, counts: Tensor) -> Tensor:
        asked.append((question, answer, counts))
        return shown(question, answer, counts)

    object.__setattr__(task, "objective", _Spied(task.objective, spy))
    with torch.no_grad():
        found = task.loss(batch, 0, generator(0, 0, 0))["loss"]
    ((question, answer, _),) = asked
    errors = (answer - question.target).square().mean(dim=(1, 2, 3))
    expected = (errors[0] + errors[2] + weight * (errors[1] + errors[3])) / 4
    torch.testing.assert_close(found, expected)


class _Spied:
    def __init__(self, objective: Any, loss: Any) -> None:
        self.ask, self.loss = objective.ask, loss


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"rank": 2.5}, "rank is 2.5"),
        ({"alpha": 0.0}, "Alpha is 0.0"),
        ({"unet": False}, "Nothing would learn"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        LoraOptions(**options)
