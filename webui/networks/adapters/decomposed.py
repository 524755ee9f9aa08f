"""DoRA (Liu et al. 2024, arXiv:2402.09353): the changed weight V = W + dW, each of its vectors given a learnt length.

W' = V * d / |V|.  LyCORIS' and OneTrainer's ``dora_scale`` (1, in, ...) is over the inputs, (out, 1, ...) over the
outputs as peft's ``lora_magnitude_vector``; AUTOMATIC1111 knows the first alone.  At another multiplier than 1 it goes
the straight way from W to W', as all kinds do here; LyCORIS scales V by m * (d / |V| - 1) + 1, and peft weakens dW
before the lengths are taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from webui.networks.adapters.change import Change
from webui.networks.adapters.parts import Parts

PARTS = frozenset({"dora_scale", "magnitude"})


@dataclass(frozen=True)
class Decomposed:
    """A change of the direction and the lengths: one for each input or for each output."""

    direction: Change
    lengths: Tensor
    over_inputs: bool

    additive: ClassVar[bool] = False

    def delta(self, weight: Tensor, multiplier: float = 1.0, ranks: int | None = None) -> Tensor:
        """The change."""
        changed = weight + self.direction.delta(weight, 1.0, ranks)
        axis = 1 if self.over_inputs else 0
        others = [number for number in range(weight.ndim) if number != axis]
        norms = torch.linalg.vector_norm(changed, dim=others, keepdim=True) + torch.finfo(torch.float32).eps
        turned: Tensor = changed * (self.lengths.float().reshape(norms.shape) / norms)
        return (turned - weight) * multiplier


def around(change: Change, parts: Parts) -> Change:
    """The change with the layer's lengths, if it has any."""
    if "magnitude" in parts.names:
        return Decomposed(change, parts["magnitude"], over_inputs=False)
    if "dora_scale" in parts.names:
        lengths = parts["dora_scale"]
        return Decomposed(change, lengths, over_inputs=lengths.ndim > 1 and lengths.shape[0] == 1)
    return change
