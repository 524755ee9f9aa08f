"""Hypernetworks: chains against torch's own layers, and in a UNet against diffusers with an attention of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import diffusers_unet, relative_error, unet
from test_unet import TOY, inputs
from torch import Tensor, nn

from webui.errors import CheckpointError
from webui.networks.hypernetwork import ACTIVATIONS, Hypernetwork, of, source_widths
from webui.networks.unet import Openings

CLASSES = {name.lower(): getattr(nn, name) for name in dir(nn.modules.activation) if hasattr(nn, name)}
CLASSES |= {"swish": nn.Hardswish, "linear": nn.Identity}
WIDTHS = (24, 32, 64)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


def chain(
    width: int, structure: tuple[float, ...], activation: str, *, activates_last: bool, norm: bool, dropout: bool
) -> nn.Sequential:
    """The layers as AUTOMATIC1111 lines them up."""
    parts: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(structure)):
        parts.append(nn.Linear(int(width * before), int(width * after)))
        if activation != "linear" and (i < len(structure) - 2 or activates_last):
            parts.append(CLASSES[activation]())
        if norm:
            parts.append(nn.LayerNorm(int(width * after)))
        if dropout and i < len(structure) - 2:
            parts.append(nn.Dropout(0.3))
    for part in parts:
        for parameter in part.parameters():
            parameter.uniform_(-0.3, 0.3)
    return nn.Sequential(*parts).eval()


def network(
    structure: tuple[float, ...] = (1, 2, 1),
    activation: str = "linear",
    *,
    activates_last: bool = True,
    norm: bool = False,
    dropout: bool = False,
    seed: int = 0,
    widths: tuple[int, ...] = WIDTHS,
) -> tuple[Hypernetwork, dict[int, list[nn.Sequential]]]:
    torch.manual_seed(seed)
    make = lambda width: chain(  # noqa: E731
        width, structure, activation, activates_last=activates_last, norm=norm, dropout=dropout
    )
    chains = {width: [make(width), make(width)] for width in widths}
    tensors = {
        f"{width}.{side}.linear.{name}": tensor
        for width, both in chains.items()
        for side, one in enumerate(both)
        for name, tensor in one.state_dict().items()
    }
    metadata = {"activation_func": activation, "activate_output": str(activates_last).lower()}
    return of(tensors, metadata), chains


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_torchs(activation: str) -> None:
    ours, chains = network(activation=activation)
    x = torch.randn(2, 5, 32)
    keys, values = ours.times(0.7)(x, 2 * x)
    assert torch.allclose(keys, x + 0.7 * chains[32][0](x), atol=1e-5)
    assert torch.allclose(values, 2 * x + 0.7 * chains[32][1](2 * x), atol=1e-5)


@pytest.mark.parametrize("structure", [(1, 1), (1, 2, 1), (1, 0.5, 2, 1)])
@pytest.mark.parametrize("activates_last", [True, False])
@pytest.mark.parametrize(("norm", "dropout"), [(False, False), (True, False), (False, True), (True, True)])
def test_every_structure_is_read_off_the_shapes(
    structure: tuple[float, ...], activates_last: bool, norm: bool, dropout: bool
) -> None:
    ours, chains = network(structure, "relu", activates_last=activates_last, norm=norm, dropout=dropout)
    x = torch.randn(1, 7, 24)
    assert torch.allclose(ours(x, x)[0], x + chains[24][0](x), atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(ours(x[..., :23], x[..., :23]), (x[..., :23],) * 2, strict=True))


def test_old_names_are_the_same_layers() -> None:
    tensors = {f"8.{side}.linear{n}.{kind}": torch.randn(*shape) for side in (0, 1) for n in (1, 2)
               for kind, shape in (("weight", (8, 8)), ("bias", (8,)))}  # fmt: skip
    renamed = {name.replace("linear1", "linear.0").replace("linear2", "linear.1"): t for name, t in tensors.items()}
    x = torch.randn(1, 2, 8)
    assert torch.equal(of(tensors, {})(x, x)[1], of(renamed, {})(x, x)[1])


class Attention:
    """diffusers' attention with changed sources, as AUTOMATIC1111 computes it."""

    def __init__(self, uses: list[tuple[dict[int, list[nn.Sequential]], float]]) -> None:
        self.uses = uses

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        keys = values = context
        for chains, multiplier in self.uses:
            if context.shape[-1] in chains:
                of_keys, of_values = chains[context.shape[-1]]
                keys = keys + of_keys(keys) * multiplier
                values = values + of_values(values) * multiplier
        heads: Callable[[Tensor], Tensor] = lambda x: x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # noqa: E731
        q, k, v = heads(attn.to_q(hidden_states)), heads(attn.to_k(keys)), heads(attn.to_v(values))
        gathered = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return attn.to_out[0](gathered)  # type: ignore[no-any-return]


@pytest.mark.parametrize("widths", [(24,), (32, 64), WIDTHS])
def test_a_unet_with_several_is_diffusers_with_such_an_attention(widths: tuple[int, ...]) -> None:
    ours = unet(replace(TOY, time_channels=128))
    assert source_widths(ours) == {24, 32, 64, 96}
    first, first_chains = network((1, 2, 1), "swish", norm=True, widths=widths)
    second, second_chains = network((1, 1), "linear", seed=1, widths=(24,))
    x, timesteps, context = inputs(ours.config)
    plain = ours(x, timesteps, context)
    opening = Openings(source_changes=(first.times(0.8),)).merged(Openings(source_changes=(second.times(-0.5),)))
    found = ours(x, timesteps, context, opening)
    theirs = diffusers_unet(ours)
    theirs.set_attn_processor(Attention([(first_chains, 0.8), (second_chains, -0.5)]))
    assert relative_error(found, theirs(x, timesteps, context).sample) < 1e-4
    assert relative_error(found, plain) > 1e-3
    assert torch.equal(ours(x, timesteps, context), plain)


W, B = torch.ones(8, 8), torch.ones(8)
BAD = {
    "nothing": ({}, {}, r"it has no tensors like"),
    "another file": ({"lora.up.weight": W}, {}, r"it has no tensors like"),
    "one side": ({"8.0.linear.0.weight": W, "8.0.linear.0.bias": B}, {}, r"it lacks \(8, 1\)"),
    "no bias": ({"8.0.linear.0.weight": W}, {}, r"it lacks 'bias'"),
    "another width": ({"9.0.linear.0.weight": W, "9.0.linear.0.bias": B}, {}, r"width 9, layer 0 has shape \[8, 8\]"),
    "an open end": ({"8.0.linear.0.weight": W[:4], "8.0.linear.0.bias": B[:4]}, {}, r"width 8 ends with 4 numbers"),
    "a norm first": ({"8.0.linear.0.weight": B, "8.0.linear.0.bias": B}, {}, r"layer 0 has shape \[8\]"),
    "an activation": ({}, {"activation_func": "softmax"}, r'its activation "softmax" is not known; known are celu'),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_are_none_are_refused(case: str) -> None:
    tensors, metadata, sentence = BAD[case]
    with pytest.raises(CheckpointError, match=sentence):
        of(tensors, metadata)
