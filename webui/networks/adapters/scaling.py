"""IA3 (Liu et al. 2022, arXiv:2205.05638): each input or output of a layer times a number.

As LyCORIS keeps it: what is added to 1, and ``on_input``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from webui.networks.adapters.change import Kind
from webui.networks.adapters.parts import Parts


@dataclass(frozen=True)
class Scaling:
    """``factors`` of the inputs or of the outputs, without the 1."""

    factors: Tensor
    on_input: bool

    additive: ClassVar[bool] = False

    def delta(self, weight: Tensor, multiplier: float = 1.0, ranks: int | None = None) -> Tensor:
        """The change."""
        axis = 1 if self.on_input else 0
        shape = [-1 if number == axis else 1 for number in range(weight.ndim)]
        factors = self.factors.float().reshape(shape)
        if factors.shape[axis] != weight.shape[axis]:
            raise RuntimeError(f"{factors.shape[axis]} factors for {weight.shape[axis]} channels")
        return weight * (factors * multiplier)


def _make(parts: Parts) -> Scaling:
    return Scaling(parts["weight"], on_input=bool(parts.number("on_input")))


_NEEDED = frozenset({"weight", "on_input"})
KIND = Kind((_NEEDED,), _NEEDED, _make)
