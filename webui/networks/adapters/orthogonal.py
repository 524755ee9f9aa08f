"""OFT (Qiu et al. 2023, arXiv:2306.07280) and BOFT (Liu et al. 2023, arXiv:2311.06243): outputs turned in blocks.

A block's rotation is Cayley's (I + Q)(I - Q)^-1 of Q = B - B^T.  ``alpha`` here bounds the norm of all Q together, by
alpha times the layer's outputs; 0 is no bound (kohya-ss/sd-scripts ``networks/oft.py``, LyCORIS ``modules/diag_oft.py``
and ``boft.py``).  At another multiplier than 1 LyCORIS moves the rotation, AUTOMATIC1111 the weight; we the weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from webui.networks.adapters.change import Kind
from webui.networks.adapters.parts import Parts

_TINY = 1e-8


@dataclass(frozen=True)
class Orthogonal:
    """``blocks`` (k, b, b), or (stages, k, b, b) of a butterfly: B, or where ``rotations`` already what turns.

    ``rescale`` holds a factor for each output.
    """

    blocks: Tensor
    alpha: float = 0.0
    rotations: bool = False
    rescale: Tensor | None = None

    additive: ClassVar[bool] = False

    def delta(self, weight: Tensor, multiplier: float = 1.0, ranks: int | None = None) -> Tensor:
        """The change."""
        rotations = self.blocks.float() if self.rotations else _cayley(self.blocks.float(), self.alpha * len(weight))
        rows = weight.flatten(1)
        turned = _in_blocks(rotations, rows) if rotations.ndim == 3 else _butterfly(rotations, rows)
        if self.rescale is not None:
            turned = turned * self.rescale.float().reshape(len(weight), 1)
        return ((turned - rows) * multiplier).view(weight.shape)


def _cayley(blocks: Tensor, bound: float) -> Tensor:
    skew = blocks - blocks.transpose(-1, -2)
    if bound > 0:
        norm = skew.norm()
        skew = skew * ((norm.clamp(max=bound) + _TINY) / (norm + _TINY))
    one = torch.eye(blocks.shape[-1], device=blocks.device)
    rotations: Tensor = (one + skew) @ torch.linalg.inv(one - skew)
    return rotations


def _in_blocks(rotations: Tensor, rows: Tensor) -> Tensor:
    """Each block of rows by its rotation's transpose, which is how the programs that train these write them."""
    blocks = rows.view(len(rotations), -1, rows.shape[1])
    return torch.einsum("knm,kni->kmi", rotations, blocks).reshape(rows.shape)


def _butterfly(rotations: Tensor, rows: Tensor) -> Tensor:
    """Stage by stage; before each the rows are dealt out so that those 2^stage * b / 2 apart meet in a block."""
    size, width = rotations.shape[-1], rows.shape[1]
    for stage, blocks in enumerate(rotations):
        apart = 2**stage * (size // 2)
        dealt = rows.view(-1, 2, apart, width).transpose(1, 2).reshape(len(blocks), size, width)
        turned = torch.einsum("kij,kjn->kin", blocks, dealt)
        rows = turned.reshape(-1, apart, 2, width).transpose(1, 2).reshape(rows.shape)
    return rows


def _make(parts: Parts) -> Orthogonal:
    if "oft_blocks" in parts.names:
        alpha, blocks, rotations = parts.number("alpha") or 0.0, parts["oft_blocks"], False
    else:  # LyCORIS before 2.0: AUTOMATIC1111 takes these for the rotations
        alpha, blocks, rotations = 0.0, parts["oft_diag"], True
    if blocks.ndim not in (3, 4) or not blocks.numel():
        raise ValueError("the blocks are no matrices")
    return Orthogonal(blocks, alpha, rotations, parts.get("rescale"))


KIND = Kind(
    (frozenset({"oft_blocks"}), frozenset({"oft_diag"})),
    frozenset({"oft_blocks", "oft_diag", "rescale", "alpha"}),
    _make,
)
