"""A whole difference of a weight (LyCORIS "full" and "norm"), and a value that takes the weight's place (ComfyUI).

Beside any kind a layer may have the difference of its bias: :func:`of_bias`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from webui.networks.adapters.change import Change, Kind
from webui.networks.adapters.parts import Parts

BIAS_PARTS = ("diff_b", "b_norm")


@dataclass(frozen=True)
class Difference:
    """What is added."""

    value: Tensor

    additive: ClassVar[bool] = True

    def delta(self, weight: Tensor, multiplier: float = 1.0, ranks: int | None = None) -> Tensor:
        """The change."""
        return (self.value.float() * multiplier).reshape(weight.shape)


@dataclass(frozen=True)
class Value:
    """What the weight becomes at a multiplier of 1."""

    value: Tensor

    additive: ClassVar[bool] = False

    def delta(self, weight: Tensor, multiplier: float = 1.0, ranks: int | None = None) -> Tensor:
        """The change."""
        return (self.value.float().reshape(weight.shape) - weight) * multiplier


@dataclass(frozen=True)
class Padded:
    """A change of a weight's first ``inputs``, as AUTOMATIC1111 applies a plain model's to an inpainting model."""

    change: Change
    inputs: int

    @property
    def additive(self) -> bool:
        """As the change of the first."""
        return self.change.additive

    def delta(self, weight: Tensor, multiplier: float = 1.0, ranks: int | None = None) -> Tensor:
        """The change, 0 for the other inputs."""
        first = self.change.delta(weight[:, : self.inputs], multiplier, ranks)
        return F.pad(first, (0, 0, 0, 0, 0, weight.shape[1] - self.inputs))


def of_bias(parts: Parts) -> tuple[Change, str] | None:
    """The change of the layer's bias, and the part that tells it; None where there is none."""
    return next(((Difference(parts[part]), part) for part in BIAS_PARTS if part in parts.names), None)


def _kind(part: str, change: type[Difference] | type[Value]) -> Kind:
    return Kind((frozenset({part}),), frozenset({part, "alpha"}), lambda parts: change(parts[part]))


DIFFERENCE = _kind("diff", Difference)
NORM = _kind("w_norm", Difference)
VALUE = _kind("set_weight", Value)
