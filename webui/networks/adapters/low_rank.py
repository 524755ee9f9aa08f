"""LoRA (Hu et al. 2021, arXiv:2106.09685): s * up @ down; LoCon is the same for a convolution.

With a core ``mid`` (LyCORIS' "CP" or Tucker form, arXiv:2309.14859 section 3.3) the three are multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from webui.networks.adapters.change import Kind
from webui.networks.adapters.parts import Parts


@dataclass(frozen=True)
class LowRank:
    """A pair ``down`` (r, in, ...) and ``up`` (out, r, ...); ``scale`` is alpha / r, 1 where a file has no alpha.

    ``mid`` (r, r, kh, kw) stands between them, with a kernel that neither of them has then.
    """

    down: Tensor
    up: Tensor
    scale: float = 1.0
    mid: Tensor | None = None

    additive: ClassVar[bool] = True

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a pair without ``mid`` has as many outputs and inputs as a weight of this shape, and one rank."""
        rank, inputs = self.down.shape[0], self.down.shape[1:].numel()
        return self.up.shape[0] == shape[0] and self.up.shape[1:].numel() == rank and inputs == math.prod(shape[1:])

    def delta(self, weight: Tensor, multiplier: float = 1.0, ranks: int | None = None) -> Tensor:
        """The change; ``ranks`` does not count where there is a ``mid``, as in AUTOMATIC1111."""
        if self.mid is not None:
            up, down = self.factors(multiplier)
            return torch.einsum("om,mnkl,ni->oikl", up, self.mid.float(), down)
        up, down = self.factors(multiplier, ranks)
        return (up @ down).view(weight.shape)

    def factors(self, multiplier: float, ranks: int | None = None) -> tuple[Tensor, Tensor]:
        """``up`` (out, r), which the scale and the multiplier go into, and ``down`` (r, in * ...), float32."""
        up = self.up.float().flatten(1)[:, :ranks] * (self.scale * multiplier)
        return up, self.down.float().flatten(1)[:ranks]


def _make(parts: Parts) -> LowRank:
    down, up, mid = parts["down"], parts["up"], parts.get("mid")
    if min(down.ndim, up.ndim) < 2:
        raise ValueError("a factor is no matrix")
    return LowRank(down, up, parts.scale(len(down)), mid)


KIND = Kind((frozenset({"down", "up"}),), frozenset({"down", "up", "mid", "alpha"}), _make)
