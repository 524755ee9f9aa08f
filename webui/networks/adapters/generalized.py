"""GLoRA (Chavan et al. 2023, arXiv:2306.07967) as LyCORIS keeps it: W @ A + B, both of low rank.

Today's files: A = a1 @ a2 and B = b1 @ b2, times alpha / r (LyCORIS ``modules/glora.py``).  Those before 2024 have the
factors the other way round, A = a2 @ a1 and B = b2 @ b1; AUTOMATIC1111 reads only these, and without alpha / r.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from webui.networks.adapters.change import Kind
from webui.networks.adapters.parts import Parts


@dataclass(frozen=True)
class Generalized:
    """``a_up`` (in, r) @ ``a_down`` (r, in) and ``b_up`` (out, r) @ ``b_down`` (r, in, ...)."""

    a_up: Tensor
    a_down: Tensor
    b_up: Tensor
    b_down: Tensor
    scale: float = 1.0
    mid: Tensor | None = None

    additive: ClassVar[bool] = False

    def delta(self, weight: Tensor, multiplier: float = 1.0, ranks: int | None = None) -> Tensor:
        """The change."""
        a_up, a_down, b_up, b_down = (
            factor.float().flatten(1) for factor in (self.a_up, self.a_down, self.b_up, self.b_down)
        )
        through = torch.einsum("oi...,ir,rj->oj...", weight, a_up, a_down)
        if self.mid is not None:
            beside = torch.einsum("om,mnkl,ni->oikl", b_up, self.mid.float(), b_down)
        else:
            beside = (b_up @ b_down).view(weight.shape)
        return (through + beside) * (self.scale * multiplier)


def _make(parts: Parts) -> Generalized:
    a1, a2, b1, b2 = (parts[name] for name in ("a1", "a2", "b1", "b2"))
    if min(factor.ndim for factor in (a1, a2, b1, b2)) < 2:
        raise ValueError("a factor is no matrix")
    old = b1.shape[0] == b2.shape[1] == a1.shape[0] == a2.shape[1]
    new = b1.shape[1] == b2.shape[0] == a1.shape[1] == a2.shape[0]
    if old and not new:
        return Generalized(a2, a1, b2, b1)
    return Generalized(a1, a2, b1, b2, parts.scale(len(a2)), parts.get("bm"))


_NEEDED = frozenset({"a1", "a2", "b1", "b2"})
KIND = Kind((_NEEDED,), _NEEDED | {"bm", "alpha"}, _make)
