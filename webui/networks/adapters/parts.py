"""A file's tensors by layer and part, whatever the program that wrote it calls them.

Suffixes of kohya-ss/sd-scripts ``networks/lora.py``, KohakuBlueleaf/LyCORIS ``lycoris/modules``, huggingface peft
``tuners/*/layer.py`` and diffusers' older ``lora_linear_layer``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

_ADAPTER = r"(?:\.default)?"  # peft puts the adapter's name between, diffusers takes it out
_SPELLINGS = {
    "down": r"(?:\.lora_down|\.lora_A(?:\.\w+)?|[._]lora\.down|\.lora_linear_layer\.down)\.weight",
    "up": r"(?:\.lora_up|\.lora_B(?:\.\w+)?|[._]lora\.up|\.lora_linear_layer\.up)\.weight",
    "mid": r"\.lora_mid\.weight",
    "alpha": r"\.alpha",
    "dora_scale": r"\.dora_scale",
    "magnitude": r"\.lora_magnitude_vector(?:\.\w+)*",
    **{f"hada_{name}": rf"\.hada_{name}{_ADAPTER}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{
        f"lokr_{name}": rf"\.lokr_{name}{_ADAPTER}"
        for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
    },
    **{
        name: rf"\.{name}"
        for name in ("oft_blocks", "oft_diag", "rescale", "diff", "diff_b", "set_weight", "w_norm", "b_norm")
    },
    **{name: rf"\.{name}\.weight" for name in ("a1", "a2", "b1", "b2", "bm")},
    "on_input": r"\.on_input",
    "weight": r"\.weight",
}  # fmt: skip
_PART = re.compile("(?:" + "|".join(f"(?P<{name}>{spelled})" for name, spelled in _SPELLINGS.items()) + ")$")


def layers_in(names: Mapping[str, object]) -> dict[str, dict[str, str]]:
    """The file's tensors by layer, as the file calls it, and part; what ends in no known part is left out."""
    layers: dict[str, dict[str, str]] = {}
    for name in names:
        if found := _PART.search(name):
            layers.setdefault(name[: found.start()], {})[found.lastgroup or ""] = name
    return layers


@dataclass(frozen=True)
class Parts:
    """A layer's tensors by part.  ``stated_alpha`` tells what the file's metadata say of the alpha of a rank."""

    tensors: Mapping[str, Tensor]
    stated_alpha: Callable[[int], float | None] = lambda rank: None

    @property
    def names(self) -> frozenset[str]:
        """The parts that are there."""
        return frozenset(self.tensors)

    def __getitem__(self, part: str) -> Tensor:
        return self.tensors[part]

    def get(self, part: str) -> Tensor | None:
        """The part's tensor, None where there is none."""
        return self.tensors.get(part)

    def number(self, part: str) -> float | None:
        """The part as a number.  Raises ValueError for one that is not a single finite number."""
        tensor = self.tensors.get(part)
        if tensor is None:
            return None
        if tensor.numel() != 1 or not math.isfinite(number := float(tensor.item())):
            raise ValueError(f"{part} is no number")
        return number

    def scale(self, rank: int) -> float:
        """alpha / rank; 1 where no alpha is told.  Raises ValueError for a rank of 0."""
        if rank < 1:
            raise ValueError("a rank of 0")
        alpha = self.number("alpha") if "alpha" in self.tensors else self.stated_alpha(rank)
        return 1.0 if alpha is None else alpha / rank
