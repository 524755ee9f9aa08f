"""Hypernetworks: small networks that change what attention takes its keys and values from.

AUTOMATIC1111 ``modules/hypernetworks/hypernetwork.py``.  For each width of source there are two chains of linear
layers, N_k and N_v; an attention whose source c has that width reads its keys from c + m N_k(c) and its values from
c + m N_v(c), m being the multiplier.  They enter a UNet call through ``Openings.source_changes``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from webui.errors import CheckpointError
from webui.networks.kernels import linear

_NAME = re.compile(r"(\d{1,6})\.([01])\.linear\.?(\d{1,6})\.(weight|bias)")
"""Width, keys or values, place in the chain (``linear1`` and ``linear2`` in old files), and what it is."""

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "celu": F.celu,
    "elu": F.elu,
    "gelu": F.gelu,
    "hardshrink": F.hardshrink,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "hardtanh": F.hardtanh,
    "leakyrelu": F.leaky_relu,
    "linear": lambda x: x,
    "logsigmoid": F.logsigmoid,
    "mish": F.mish,
    "relu": F.relu,
    "relu6": F.relu6,
    "rrelu": F.rrelu,  # without training, the middle of its random slopes
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": F.softplus,
    "softshrink": F.softshrink,
    "softsign": F.softsign,
    "swish": F.hardswish,  # AUTOMATIC1111 calls it so
    "tanh": torch.tanh,
    "tanhshrink": F.tanhshrink,
}
"""By the name in the file: that of torch's class in small letters, with torch's default numbers."""


@dataclass(frozen=True)
class Layer:
    """A linear layer, and the weight and bias of the normalisation after it where there is one."""

    weight: Tensor
    bias: Tensor
    norm: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Chain:
    """Linear layers, each followed by the activation (the last only where the file says so) and its normalisation."""

    layers: tuple[Layer, ...]
    activation: str
    activates_last: bool

    def __call__(self, x: Tensor) -> Tensor:
        """What is added to a source ``x`` (B, T, width), in its dtype."""
        for place, layer in enumerate(self.layers, 1):
            x = linear(x, layer.weight, layer.bias)
            if place < len(self.layers) or self.activates_last:
                x = ACTIVATIONS[self.activation](x)
            if layer.norm is not None:
                x = F.layer_norm(x, x.shape[-1:], *layer.norm)
        return x


@dataclass(frozen=True)
class Hypernetwork:
    """Two chains by the width of the source: for keys and for values."""

    chains: Mapping[int, tuple[Chain, Chain]]
    multiplier: float = 1.0

    def __call__(self, key_source: Tensor, value_source: Tensor) -> tuple[Tensor, Tensor]:
        """The sources (B, T, width) of keys and values, changed where the width is one of this network's."""
        found = self.chains.get(key_source.shape[-1])
        if found is None:
            return key_source, value_source
        keys, values = found
        return key_source + keys(key_source) * self.multiplier, value_source + values(value_source) * self.multiplier

    def times(self, multiplier: float) -> Hypernetwork:
        """The same network at another multiplier."""
        return replace(self, multiplier=multiplier)


def of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Hypernetwork:
    """The network of a file's tensors and plain values.  Structure is read off the shapes; dropout is for training.

    Raises CheckpointError for tensors that are no chains from a width to itself, and for an activation that is unknown.
    """
    activation = metadata.get("activation_func", "linear").lower()
    if activation not in ACTIVATIONS:
        raise CheckpointError(f'its activation "{activation[:50]}" is not known; known are {", ".join(ACTIVATIONS)}.')
    activates_last = metadata.get("activate_output", "").lower() != "false"
    parts: dict[tuple[int, int], dict[int, dict[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        if found := _NAME.fullmatch(name):
            width, side, place, kind = int(found[1]), int(found[2]), int(found[3]), found[4]
            parts.setdefault((width, side), {}).setdefault(place, {})[kind] = tensor
    widths = sorted({width for width, _ in parts})
    try:
        chains = {
            width: (
                Chain(_layers(parts[width, 0], width), activation, activates_last),
                Chain(_layers(parts[width, 1], width), activation, activates_last),
            )
            for width in widths
        }
    except KeyError as error:
        raise CheckpointError(f"it lacks {error}, a part of one of its networks.") from error
    if not chains:
        raise CheckpointError('it has no tensors like "768.0.linear.0.weight".')
    return Hypernetwork(chains)


def source_widths(unet: nn.Module) -> set[int]:
    """The widths that attention in a UNet takes keys and values from: 320, 640, 1280 and 768 for SD1."""
    return {weight.shape[1] for name, weight in unet.named_parameters() if name.endswith(".to_k.weight")}


def _layers(parts: Mapping[int, Mapping[str, Tensor]], width: int) -> tuple[Layer, ...]:
    """The chain of the linear layers and normalisations at these places."""
    layers: list[Layer] = []
    before = width
    for place in sorted(parts):
        weight, bias = parts[place]["weight"], parts[place]["bias"]
        if weight.ndim == 1 and layers and layers[-1].norm is None and weight.shape == bias.shape == (before,):
            layers[-1] = replace(layers[-1], norm=(weight, bias))
        elif weight.ndim == 2 and weight.shape[1] == before and bias.shape == weight.shape[:1]:
            layers.append(Layer(weight, bias))
            before = weight.shape[0]
        else:
            raise CheckpointError(f"of its networks for width {width}, layer {place} has shape {list(weight.shape)}.")
    if before != width:
        raise CheckpointError(f"its network for width {width} ends with {before} numbers.")
    return tuple(layers)
