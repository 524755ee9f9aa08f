"""A file of LoRA's family and a network: what the file changes there, and the changed network.

The kinds of change stand in ``networks/adapters``, the names of layers in ``layer_names.py``.  A base network is never
changed: the changed one shares with it every tensor that no file names.

Called by ``conditioning/lora.py``.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from webui.networks import adapters
from webui.networks.adapters import difference
from webui.networks.adapters.change import Change
from webui.networks.adapters.difference import Padded
from webui.networks.adapters.low_rank import LowRank
from webui.networks.adapters.parts import Parts, layers_in
from webui.networks.clip import ClipTextEncoder
from webui.networks.layer_names import TEXT_ENCODER, UNET, Layer, Target, flat, layer_names
from webui.networks.unet import UNet

Network = TypeVar("Network", bound=nn.Module)
_FIRST_CONVOLUTION = "input_blocks.0.0.weight"
_LATENT_CHANNELS = 4
_EMBEDDINGS = "bundle_emb."
_BUFFER_NUMBERS = 1 << 18


@dataclass(frozen=True)
class Fitted:
    """What a file changes here, and how its tensors fit: so many used, these unknown or misshapen."""

    changes: Mapping[Target, Change]
    used: int
    unknown: tuple[str, ...]
    misshapen: tuple[str, ...]


class Use(NamedTuple):
    """A fitted file and how strongly it acts on each network.

    ``ranks`` as in :meth:`Change.delta`; ``blocks`` are factors for each of ``webui.prompt.block_weights.BLOCKS``.
    """

    fitted: Fitted
    text_weight: float
    unet_weight: float
    ranks: int | None = None
    blocks: tuple[float, ...] | None = None

    def weight_on(self, target: Target) -> float:
        """The multiplier for one parameter; what stands outside all blocks is not weighed by block."""
        weight = self.unet_weight if target.network == UNET else self.text_weight
        return weight if self.blocks is None or target.block is None else weight * self.blocks[target.block]


class Weighed(NamedTuple):
    """A change of one parameter and its multiplier."""

    change: Change
    weight: float
    ranks: int | None


def fit(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], unet: UNet, text_encoder: ClipTextEncoder
) -> Fitted:
    """What a file's tensors change in these networks.

    Of a layer of a known kind, parts that the kind does not have are unknown.  A layer whose parts do not belong
    together or do not fit the weight is misshapen.  Without ``alpha`` it is what peft's ``lora_adapter_metadata`` says.
    Embeddings that are bundled with the file are none of this; ``conditioning/embedding.py`` reads them.
    """
    names = layer_names(unet, text_encoder)
    changes: dict[Target, Change] = {}
    used: list[str] = []
    misshapen: list[str] = []
    for name, parts in layers_in(tensors).items():
        layer = names.get(flat(name).replace("_processor_", "_"))
        if layer is not None and layer.weight not in changes and layer.bias not in changes:
            taken, wrong = _fit_layer(layer, name, {part: tensors[full] for part, full in parts.items()}, metadata)
            changes |= taken.changes
            used += (parts[part] for part in taken.parts)
            misshapen += (parts[part] for part in wrong)
    known = {*used, *misshapen}
    unknown = (name for name in tensors if name not in known and not name.startswith(_EMBEDDINGS))
    return Fitted(changes, len(used), tuple(unknown), tuple(misshapen))


class _Taken(NamedTuple):
    """The changes that a layer's tensors make, and the parts that were used for them."""

    changes: dict[Target, Change]
    parts: set[str]


def _fit_layer(
    layer: Layer, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[_Taken, frozenset[str]]:
    """What a layer's tensors change, and the parts that do not fit."""
    parts = Parts(tensors, lambda rank: _stated_alpha(metadata, name, rank))
    taken, wrong = _Taken({}, set()), frozenset[str]()
    try:
        if found := adapters.change_of(parts):
            change = _to_fit(found[0], layer.weight)
            if change is None:
                wrong = found[1]
            else:
                taken.changes[layer.weight] = change
                taken.parts.update(found[1])
    except ValueError:
        wrong = parts.names - set(difference.BIAS_PARTS)
    if of_bias := difference.of_bias(parts):
        change, part = of_bias
        if layer.bias is not None and adapters.fits(change, layer.bias.shape):
            taken.changes[layer.bias] = change
            taken.parts.add(part)
        else:
            wrong |= {part}
    return taken, wrong


def _to_fit(change: Change, target: Target) -> Change | None:
    """The change in the weight's shape, None when it has another.

    The first layer of an inpainting UNet takes five channels more, which a plain model's file leaves as they are.
    """
    if adapters.fits(change, target.shape):
        return change
    if target.parameter != _FIRST_CONVOLUTION or target.shape[1] <= _LATENT_CHANNELS:
        return None
    plain = (target.shape[0], _LATENT_CHANNELS, *target.shape[2:])
    return Padded(change, _LATENT_CHANNELS) if adapters.fits(change, plain) else None


def changes_of(network: str, uses: Sequence[Use]) -> dict[str, list[Weighed]]:
    """The changes of each parameter of ``unet`` or ``text_encoder``, in the order of the uses; without those of 0."""
    changes: dict[str, list[Weighed]] = {}
    for use in uses:
        for target, change in use.fitted.changes.items():
            if target.network == network and (weight := use.weight_on(target)):
                changes.setdefault(target.parameter, []).append(Weighed(change, weight, use.ranks))
    return changes


def merged(network: Network, changes: Mapping[str, Sequence[Weighed]]) -> Network:
    """A network with its parameters changed; the given one is left as it is, to the bit.

    It shares every other tensor with the given one.  Without changes the given network itself comes back.
    """
    with torch.no_grad():
        changed = {name: _changed(network.get_parameter(name), several) for name, several in changes.items()}
    return _with_parameters(network, changed) if changed else network


def _with_parameters(module: Network, parameters: Mapping[str, nn.Parameter]) -> Network:
    """The module with these parameters, by dotted name; it shares with the given one all that has none of them."""
    own = {name: parameter for name, parameter in parameters.items() if "." not in name}
    inside: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in parameters.items():
        child, dot, rest = name.partition(".")
        if dot:
            inside.setdefault(child, {})[rest] = parameter
    children = {child: _with_parameters(module.get_submodule(child), several) for child, several in inside.items()}
    result = copy.copy(module)
    result.__dict__["_parameters"] = {**module._parameters, **own}
    result.__dict__["_modules"] = {**module._modules, **children}
    return result


def _changed(before: Tensor, changes: Sequence[Weighed]) -> nn.Parameter:
    """A parameter after its changes, one after the other, each of what the one before left.

    Sums are taken in float32 and rounded once to the parameter's own dtype; its arrangement in memory (channels last)
    is kept.
    """
    after = torch.empty_like(before)
    pairs = [change.factors(weight, ranks) for change, weight, ranks in changes if _is_pair(change)]
    if len(pairs) == len(changes):
        up, down = (
            pairs[0] if len(pairs) == 1 else (torch.cat([u for u, _ in pairs], 1), torch.cat([d for _, d in pairs]))
        )
        _add_product(before, up, down, after)
    elif all(change.additive for change, _, _ in changes):
        deltas = (change.delta(before, weight, ranks) for change, weight, ranks in changes)
        total = next(deltas)
        for delta in deltas:
            total += delta
        torch.add(before, total, out=after)  # added in float32, also where the weights are not
    else:
        weight = before.float()
        for change, multiplier, ranks in changes:
            weight = weight + change.delta(weight, multiplier, ranks)
        after.copy_(weight)
    return nn.Parameter(after, requires_grad=before.requires_grad)


def _is_pair(change: Change) -> TypeGuard[LowRank]:
    return isinstance(change, LowRank) and change.mid is None


def _add_product(before: Tensor, up: Tensor, down: Tensor, after: Tensor) -> None:
    """``after`` becomes ``before`` + ``up`` (out, r) @ ``down`` (r, in * ...).

    Other dtypes than float32 go through a buffer that stays in the processor's cache: a third of the time that the sum
    of a whole product takes in bfloat16 (``benchmarks/lora_switch.py``).
    """
    if before.is_contiguous(memory_format=torch.channels_last) and not before.is_contiguous():
        before, after = (tensor.permute(0, 2, 3, 1) for tensor in (before, after))
        *kernel, inputs = before.shape[1:]
        down = down.view(-1, inputs, *kernel).permute(0, 2, 3, 1).flatten(1)
    rows, target = before.view(len(before), -1), after.view(len(after), -1)
    if rows.dtype is torch.float32:
        torch.addmm(rows, up, down, out=target)
        return
    count = max(1, (_BUFFER_NUMBERS if rows.device.type == "cpu" else rows.numel()) // rows.shape[1])
    buffer = torch.empty(min(count, len(rows)), rows.shape[1], device=rows.device)
    for start in range(0, len(rows), count):
        some = slice(start, start + count)
        target[some] = buffer[: len(rows[some])].copy_(rows[some]).addmm_(up[some], down)


def _stated_alpha(metadata: Mapping[str, str], layer: str, rank: int) -> float | None:
    """The alpha that diffusers notes of a peft adapter in the file's metadata; None when it says nothing of it."""
    try:
        stated: Any = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        network = TEXT_ENCODER if layer.startswith(TEXT_ENCODER) else UNET
        patterns = stated.get(f"{network}.alpha_pattern") or {}
        alpha = next(
            (value for path, value in patterns.items() if layer.endswith(path)), stated.get(f"{network}.lora_alpha")
        )
        if alpha is None:
            return None
        return float(alpha) * (math.sqrt(rank) if stated.get(f"{network}.use_rslora") else 1.0)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None
