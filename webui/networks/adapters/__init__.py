"""Adapters: what a file's tensors for one layer do to that layer's weight, a kind per file.

A layer's tensors are told apart by their last names, its *parts* (``lora_down.weight``, ``hada_w1_a``, ...).  The kind
whose parts are all there makes a :class:`Change`, which gives the change of a weight and never touches the weight.
Where AUTOMATIC1111 knows a kind, pictures are to equal its ``extensions-builtin/Lora/network_*.py``; kinds and forms it
lacks follow LyCORIS (Yeh et al. 2023, arXiv:2309.14859) and peft.  In all kinds the user's multiplier m moves along the
straight line from the weight W to what it becomes at m = 1: W + m * (W' - W).

    low_rank.py      LoRA, LoCon, with a core of Tucker's form as well
    hadamard.py      LoHa
    kronecker.py     LoKr
    scaling.py       IA3
    difference.py    a whole difference, of norms and biases too; a value instead of the weight
    orthogonal.py    OFT and BOFT
    generalized.py   GLoRA
    decomposed.py    DoRA, around any of the others

Called by ``networks/lora.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from webui.networks.adapters import (
    decomposed,
    difference,
    generalized,
    hadamard,
    kronecker,
    low_rank,
    orthogonal,
    scaling,
)
from webui.networks.adapters.change import Change, Kind, on_meta
from webui.networks.adapters.parts import Parts

KINDS: tuple[Kind, ...] = (
    low_rank.KIND,
    hadamard.KIND,
    kronecker.KIND,
    orthogonal.KIND,
    generalized.KIND,
    scaling.KIND,
    difference.DIFFERENCE,
    difference.NORM,
    difference.VALUE,
)
"""Of a layer that has the parts of several kinds, the first counts."""


def change_of(parts: Parts) -> tuple[Change, frozenset[str]] | None:
    """The change of the weight that a layer's parts mean, and the parts it took; None when they are of no kind.

    Raises ValueError when the parts are of a kind but do not belong together.
    """
    for kind in KINDS:
        if any(needed <= parts.names for needed in kind.needs):
            try:
                change = decomposed.around(kind.make(parts), parts)
            except (RuntimeError, IndexError, TypeError) as error:
                raise ValueError(str(error)) from error
            return change, (kind.takes | decomposed.PARTS) & parts.names
    return None


def fits(change: Change, shape: Sequence[int]) -> bool:
    """Whether the change is one of a weight of this shape; nothing is computed for it."""
    if isinstance(change, low_rank.LowRank) and change.mid is None:
        return change.fits(shape)
    try:
        return on_meta(change).delta(torch.empty(*shape, device="meta")).shape == tuple(shape)
    except (RuntimeError, IndexError, ValueError, TypeError):
        return False
