"""Every kind of adapter on random layers: LyCORIS and peft as the oracles, the formula by hand where they have none."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from webui.networks.adapters import change_of, fits
from webui.networks.adapters.change import Change
from webui.networks.adapters.decomposed import Decomposed
from webui.networks.adapters.generalized import Generalized
from webui.networks.adapters.low_rank import LowRank
from webui.networks.adapters.orthogonal import Orthogonal
from webui.networks.adapters.parts import Parts, layers_in
from webui.networks.adapters.scaling import Scaling

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lycoris import modules as lycoris

TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}


def linear() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(24, 32)


def convolution() -> nn.Conv2d:
    torch.manual_seed(2)
    return nn.Conv2d(12, 32, 3, padding=1)


def projection() -> nn.Conv2d:
    torch.manual_seed(3)
    return nn.Conv2d(12, 32, 1)


LAYERS: dict[str, Callable[[], nn.Linear | nn.Conv2d]] = {
    "linear": linear,
    "convolution": convolution,
    "projection": projection,
}


@dataclass(frozen=True)
class Case:
    """A LyCORIS module and how it is made."""

    module: Any
    options: Mapping[str, Any]
    parts: str
    layers: tuple[str, ...] = tuple(LAYERS)


CASES = {
    "lora": Case(lycoris.LoConModule, {"lora_dim": 4, "alpha": 3}, "down up alpha"),
    "locon with a core": Case(
        lycoris.LoConModule, {"lora_dim": 4, "alpha": 3, "use_tucker": True}, "down up mid alpha", ("convolution",)
    ),
    "dora over outputs": Case(
        lycoris.LoConModule,
        {"lora_dim": 4, "alpha": 3, "weight_decompose": True, "wd_on_out": True},
        "down up alpha dora_scale",
    ),
    "dora over inputs": Case(
        lycoris.LoConModule,
        {"lora_dim": 4, "alpha": 3, "weight_decompose": True, "wd_on_out": False},
        "down up alpha dora_scale",
    ),
    "loha": Case(lycoris.LohaModule, {"lora_dim": 4, "alpha": 3}, "hada_w1_a hada_w1_b hada_w2_a hada_w2_b alpha"),
    "loha with cores": Case(
        lycoris.LohaModule,
        {"lora_dim": 4, "alpha": 3, "use_tucker": True},
        "hada_w1_a hada_w1_b hada_w2_a hada_w2_b hada_t1 hada_t2 alpha",
        ("convolution",),
    ),
    "loha dora": Case(
        lycoris.LohaModule,
        {"lora_dim": 4, "alpha": 3, "weight_decompose": True},
        "hada_w1_a hada_w1_b hada_w2_a hada_w2_b alpha dora_scale",
    ),
    "lokr, the second factored": Case(
        lycoris.LokrModule, {"lora_dim": 2, "alpha": 3, "factor": 4}, "lokr_w1 lokr_w2_a lokr_w2_b alpha"
    ),
    "lokr, both factored": Case(
        lycoris.LokrModule,
        {"lora_dim": 1, "alpha": 3, "factor": 4, "decompose_both": True},
        "lokr_w1_a lokr_w1_b lokr_w2_a lokr_w2_b alpha",
    ),
    "lokr, both whole": Case(
        lycoris.LokrModule, {"lora_dim": 64, "alpha": 3, "factor": 4, "full_matrix": True}, "lokr_w1 lokr_w2 alpha"
    ),
    "lokr with a core": Case(
        lycoris.LokrModule,
        {"lora_dim": 2, "alpha": 3, "factor": 4, "use_tucker": True},
        "lokr_w1 lokr_w2_a lokr_w2_b lokr_t2 alpha",
        ("convolution",),
    ),
    "lokr dora": Case(
        lycoris.LokrModule,
        {"lora_dim": 2, "alpha": 3, "factor": 4, "weight_decompose": True},
        "lokr_w1 lokr_w2_a lokr_w2_b alpha dora_scale",
    ),
    "ia3 on outputs": Case(lycoris.IA3Module, {"train_on_input": False}, "weight on_input", ("linear",)),
    "ia3 on inputs": Case(lycoris.IA3Module, {"train_on_input": True}, "weight on_input"),
    "full": Case(lycoris.FullModule, {}, "diff diff_b"),
    "oft": Case(lycoris.DiagOFTModule, {"lora_dim": 4}, "oft_blocks alpha"),
    "oft, bounded and rescaled": Case(
        lycoris.DiagOFTModule, {"lora_dim": 4, "constraint": 0.02, "rescaled": True}, "oft_blocks alpha rescale"
    ),
    "boft": Case(lycoris.ButterflyOFTModule, {"lora_dim": 4}, "oft_blocks alpha"),
    "boft, bounded and rescaled": Case(
        lycoris.ButterflyOFTModule, {"lora_dim": 4, "constraint": 0.02, "rescaled": True}, "oft_blocks alpha rescale"
    ),
    "glora": Case(lycoris.GLoRAModule, {"lora_dim": 4, "alpha": 3}, "a1 a2 b1 b2 alpha"),
}
RUNS = [(case, layer) for case in CASES for layer in CASES[case].layers]


def made(case: Case, layer: nn.Module) -> tuple[Any, dict[str, Tensor]]:
    """A LyCORIS module with random numbers, and what its file would hold."""
    module = case.module("lora_unet_x", layer, **{"multiplier": 1.0, **case.options})
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "scale" in name:  # lengths and factors of outputs stay near what they are
                parameter *= torch.rand_like(parameter) + 0.5
            else:
                parameter.normal_(std=0.3)
    module.eval()
    if isinstance(module, lycoris.FullModule):  # keeps the difference by the weight's name until it is applied
        saved = {"diff": module.weight, "diff_b": module.bias}
    else:
        saved = module.custom_state_dict() or module.state_dict()
    return module, {f"lora_unet_x.{name}": value.detach().clone() for name, value in saved.items()}


def read(file: Mapping[str, Tensor]) -> tuple[Parts, Change]:
    """The file's only layer."""
    ((layer, names),) = layers_in(file).items()
    assert layer == "lora_unet_x" and set(names.values()) == set(file)
    parts = Parts({part: file[name] for part, name in names.items()})
    found = change_of(parts)
    assert found is not None
    assert found[1] | {"diff_b"} >= parts.names
    return parts, found[0]


def output(layer: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=layer.padding)  # type: ignore[arg-type]


def inputs(layer: nn.Linear | nn.Conv2d) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    if isinstance(layer, nn.Linear):
        return torch.randn(3, layer.in_features, generator=generator)
    return torch.randn(2, layer.in_channels, 6, 5, generator=generator)


@pytest.mark.parametrize(("name", "kind"), RUNS)
@torch.no_grad()
def test_equals_lycoris(name: str, kind: str) -> None:
    layer = LAYERS[kind]()
    base, bias, x = layer.weight.detach().clone(), layer.bias.detach().clone(), inputs(layer)
    module, file = made(CASES[name], layer)
    parts, change = read(file)
    assert parts.names == set(CASES[name].parts.split())
    assert fits(change, base.shape) and not fits(change, (base.shape[0] + 1, base.shape[1] + 1, *base.shape[2:]))
    new_weight = base + change.delta(base)
    new_bias = bias + parts["diff_b"] if "diff_b" in parts.names else bias
    module.apply_to()
    expected = layer(x)
    assert (expected - output(layer, base, bias, x)).abs().mean() > 0.01, "the oracle changes nothing"
    torch.testing.assert_close(output(layer, new_weight, new_bias, x), expected, **TOLERANCE)


@pytest.mark.parametrize(("name", "kind"), RUNS)
@torch.no_grad()
def test_the_weight_is_left_alone_and_the_multiplier_is_a_factor(name: str, kind: str) -> None:
    """AUTOMATIC1111's ``finalize_updown`` in every kind: what is added at m = 1, times m."""
    layer = LAYERS[kind]()
    _, change = read(made(CASES[name], layer)[1])
    weight = layer.weight.detach().clone()
    whole = change.delta(weight)
    torch.testing.assert_close(change.delta(weight, 0.3), 0.3 * whole, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(change.delta(weight, -1.0), -whole, rtol=1e-4, atol=1e-6)
    assert whole.dtype is torch.float32 and whole.shape == weight.shape and torch.equal(weight, layer.weight)
    assert torch.equal(change.delta(weight), whole)
    if change.additive:
        assert torch.equal(change.delta(torch.zeros_like(weight)), whole)


@torch.no_grad()
def test_norms_equal_lycoris() -> None:
    torch.manual_seed(0)
    layer = nn.LayerNorm(24)
    module, file = made(Case(lycoris.NormModule, {}, ""), layer)
    parts, change = read({name: value for name, value in file.items() if not name.endswith("b_norm")})
    assert parts.names == {"w_norm"}
    x = torch.randn(3, 24)
    new = layer.weight + change.delta(layer.weight), layer.bias + file["lora_unet_x.b_norm"]
    expected = F.layer_norm(x, (24,), *new)
    module.apply_to()
    torch.testing.assert_close(layer(x), expected, **TOLERANCE)


def peft_layer(config: Any, layer: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    """peft's form of a layer with random numbers, and what its file would hold."""
    from peft import get_peft_model_state_dict, inject_adapter_in_model

    torch.manual_seed(4)
    whole = inject_adapter_in_model(config, nn.ModuleDict({"x": copy.deepcopy(layer)}))
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            if "base_layer" not in name:
                if "magnitude" in name:
                    parameter *= torch.rand_like(parameter) + 0.5
                else:
                    parameter.normal_(std=0.3)
    state = {name: value.detach().clone() for name, value in get_peft_model_state_dict(whole).items()}
    return whole.eval(), {f"lora_unet_{name}": value for name, value in state.items()}


PEFT = {
    "lora": ("LoraConfig", {"r": 4, "lora_alpha": 8}),
    "dora": ("LoraConfig", {"r": 4, "lora_alpha": 8, "use_dora": True}),
    "loha": ("LoHaConfig", {"r": 4, "alpha": 8}),
    "loha with cores": ("LoHaConfig", {"r": 4, "alpha": 8, "use_effective_conv2d": True}),
    "lokr": ("LoKrConfig", {"r": 2, "alpha": 4, "decompose_factor": 4}),
    "lokr with a core": ("LoKrConfig", {"r": 2, "alpha": 4, "decompose_factor": 4, "use_effective_conv2d": True}),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", PEFT)
@torch.no_grad()
def test_equals_peft(name: str, kind: str) -> None:
    import peft

    layer = LAYERS[kind]()
    config, options = PEFT[name]
    theirs, file = peft_layer(getattr(peft, config)(target_modules=["x"], **options), layer)
    x = inputs(layer)
    ((_, names),) = layers_in(file).items()
    parts = Parts({part: file[full] for part, full in names.items()}, lambda rank: 2.0 * rank)
    found = change_of(parts)
    assert found is not None and found[1] == parts.names and set(names.values()) == set(file)
    new_weight = layer.weight + found[0].delta(layer.weight)
    expected = theirs.x(x)  # type: ignore[operator]
    assert (expected - layer(x)).abs().mean() > 0.01, "the oracle changes nothing"
    torch.testing.assert_close(output(layer, new_weight, layer.bias, x), expected, **TOLERANCE)


def test_glora_of_before_2024_as_automatic1111_reads_it() -> None:
    """``network_glora.py``: b2 @ b1 + W @ a2 @ a1, not times alpha / r."""
    torch.manual_seed(0)
    weight = torch.randn(16, 12)
    a1, a2, b1, b2 = torch.randn(4, 12), torch.randn(12, 4), torch.randn(4, 12), torch.randn(16, 4)
    tensors = {"a1": a1, "a2": a2, "b1": b1, "b2": b2, "alpha": torch.tensor(2.0)}
    found = change_of(Parts(tensors))
    assert found is not None and isinstance(found[0], Generalized)
    torch.testing.assert_close(found[0].delta(weight), b2 @ b1 + weight @ a2 @ a1, **TOLERANCE)


def test_oft_of_old_lycoris_holds_the_rotations_themselves() -> None:
    torch.manual_seed(0)
    weight, rotations = torch.randn(12, 5), torch.linalg.qr(torch.randn(3, 4, 4)).Q
    found = change_of(Parts({"oft_diag": rotations}))
    assert found is not None and isinstance(found[0], Orthogonal)
    expected = torch.block_diag(*rotations).T @ weight
    torch.testing.assert_close(weight + found[0].delta(weight), expected, **TOLERANCE)


def test_rotations_keep_lengths() -> None:
    torch.manual_seed(0)
    weight = torch.randn(16, 6)
    for blocks in (torch.randn(4, 4, 4), torch.randn(3, 4, 4, 4)):
        turned = weight + Orthogonal(blocks).delta(weight)
        torch.testing.assert_close(turned.norm(dim=0), weight.norm(dim=0))


def test_a_value_takes_the_weights_place() -> None:
    value, weight = torch.randn(3, 4), torch.randn(3, 4)
    found = change_of(Parts({"set_weight": value}))
    assert found is not None and not found[0].additive
    torch.testing.assert_close(weight + found[0].delta(weight), value)
    torch.testing.assert_close(weight + found[0].delta(weight, 0.5), (value + weight) / 2)


def test_dora_takes_the_straight_way_as_automatic1111() -> None:
    """``network.py``: dora_merged - W, times the multiplier; 0 leaves the weight, whatever the lengths."""
    torch.manual_seed(0)
    weight, pair = torch.randn(6, 5), LowRank(torch.randn(2, 5), torch.randn(6, 2))
    change = Decomposed(pair, torch.rand(1, 5) + 0.5, over_inputs=True)
    changed = weight + pair.up @ pair.down
    expected = changed * change.lengths / changed.norm(dim=0, keepdim=True)
    torch.testing.assert_close(weight + change.delta(weight), expected, **TOLERANCE)
    torch.testing.assert_close(weight + change.delta(weight, 0.25), weight + 0.25 * (expected - weight), **TOLERANCE)
    assert not change.delta(weight, 0.0).any()


def test_ia3_on_the_outputs_of_a_convolution() -> None:
    weight, factors = torch.randn(4, 3, 3, 3), torch.randn(1, 4, 1, 1)
    torch.testing.assert_close(Scaling(factors, on_input=False).delta(weight), weight * factors.view(4, 1, 1, 1))


@pytest.mark.parametrize(
    "tensors",
    [
        {"down": torch.ones(()), "up": torch.ones(3, 2)},
        {"down": torch.ones(0, 3), "up": torch.ones(3, 0)},
        {"down": torch.ones(2, 3), "up": torch.ones(3, 2), "alpha": torch.ones(2)},
        {"down": torch.ones(2, 3), "up": torch.ones(3, 2), "alpha": torch.tensor(float("nan"))},
        {"weight": torch.ones(3), "on_input": torch.ones(2)},
        {"oft_blocks": torch.ones(3)},
        {"a1": torch.ones(3), "a2": torch.ones(3), "b1": torch.ones(3), "b2": torch.ones(3)},
    ],
    ids=lambda tensors: " ".join(tensors),
)
def test_parts_that_do_not_belong_together_are_refused(tensors: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"."):
        change_of(Parts(tensors))


def test_parts_of_no_kind() -> None:
    for names in ({"alpha"}, {"down"}, {"weight"}, {"hada_w1_a", "hada_w1_b"}, {"lokr_w1"}, {"dora_scale"}, {"diff_b"}):
        assert change_of(Parts({name: torch.ones(2, 2) for name in names})) is None
