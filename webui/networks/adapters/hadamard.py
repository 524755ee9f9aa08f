"""LoHa (Hyeon-Woo et al. 2021, arXiv:2108.06098; LyCORIS): s * (a1 @ b1) o (a2 @ b2), o for each number by its other.

In the Tucker form of a convolution each of the two is a core t (r, r, kh, kw) between a (r, out) and b (r, in).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from webui.networks.adapters.change import Kind
from webui.networks.adapters.parts import Parts


def tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """(out, in, kh, kw) of a core (i, j, kh, kw), ``a`` (i, out) and ``b`` (j, in)."""
    return torch.einsum("ijkl,io,jn->onkl", core.float(), a.float(), b.float())


@dataclass(frozen=True)
class Hadamard:
    """Two products; ``core1`` and ``core2`` are there in the Tucker form."""

    a1: Tensor
    b1: Tensor
    a2: Tensor
    b2: Tensor
    scale: float = 1.0
    core1: Tensor | None = None
    core2: Tensor | None = None

    additive: ClassVar[bool] = True

    def delta(self, weight: Tensor, multiplier: float = 1.0, ranks: int | None = None) -> Tensor:
        """The change."""
        first = _product(self.core1, self.a1, self.b1)
        return (first * (self.scale * multiplier) * _product(self.core2, self.a2, self.b2)).view(weight.shape)


def _product(core: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """A matrix for both forms, so that one in the Tucker form and one without still meet."""
    if core is not None:
        return tucker(core, a, b).flatten(1)
    return a.float().flatten(1) @ b.float().flatten(1)


def _make(parts: Parts) -> Hadamard:
    a1, b1, a2, b2 = (parts[f"hada_{name}"] for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
    return Hadamard(a1, b1, a2, b2, parts.scale(len(b1)), parts.get("hada_t1"), parts.get("hada_t2"))


_NEEDED = frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})
KIND = Kind((_NEEDED,), _NEEDED | {"hada_t1", "hada_t2", "alpha"}, _make)
