"""LoKr (LyCORIS, arXiv:2309.14859): s * w1 (x) w2, the Kronecker product; either may be a product of two itself.

s is 1 when both are whole, else alpha over the rank of the factored one (of the second when both are).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor

from webui.networks.adapters.change import Kind
from webui.networks.adapters.hadamard import tucker
from webui.networks.adapters.parts import Parts


@dataclass(frozen=True)
class Factor:
    """A matrix or kernel: ``whole``, or ``a`` @ ``b``, or the two with a core between."""

    whole: Tensor | None = None
    a: Tensor | None = None
    b: Tensor | None = None
    core: Tensor | None = None

    @property
    def rank(self) -> int | None:
        """Of a factored one its rank."""
        return None if self.whole is not None or self.b is None else len(self.b)

    def value(self) -> Tensor:
        """The numbers, float32."""
        if self.whole is not None:
            return self.whole.float()
        if self.a is None or self.b is None:
            raise ValueError("a factor lacks its half")
        return self.a.float() @ self.b.float() if self.core is None else tucker(self.core, self.a, self.b)


@dataclass(frozen=True)
class Kronecker:
    """The product of two factors; only the second has a kernel, which comes last in its numbers."""

    first: Factor
    second: Factor
    scale: float = 1.0

    additive: ClassVar[bool] = True

    def delta(self, weight: Tensor, multiplier: float = 1.0, ranks: int | None = None) -> Tensor:
        """The change."""
        first, second = self.first.value() * (self.scale * multiplier), self.second.value()
        first = first.reshape(*first.shape, *[1] * (second.ndim - first.ndim))
        return torch.kron(first, second.contiguous()).reshape(weight.shape)


def _make(parts: Parts) -> Kronecker:
    first, second = (
        Factor(parts.get(f"lokr_{w}"), parts.get(f"lokr_{w}_a"), parts.get(f"lokr_{w}_b"), parts.get(core))
        for w, core in (("w1", ""), ("w2", "lokr_t2"))
    )
    rank = second.rank or first.rank
    return Kronecker(first, second, 1.0 if rank is None else parts.scale(rank))


_FORMS = ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"}), ({"lokr_w2"}, {"lokr_w2_a", "lokr_w2_b"})
_NEEDS = tuple(frozenset(first | second) for first, second in product(*_FORMS))
KIND = Kind(_NEEDS, frozenset[str]().union(*_NEEDS) | {"lokr_t2", "alpha"}, _make)
