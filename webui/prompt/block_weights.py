"""Weights of a LoRA by the UNet's blocks, as hako-mikan/sd-webui-lora-block-weight writes them in a tag.

Seventeen numbers for the blocks that have attention, or 26 for all of SD 1.x; 12 and 20 for SDXL; or a list's name.
A block that a shorter list leaves out counts 0, also for ``ALL``.  The random letters R and U, which nobody could make
again, are not numbers here.
"""

from __future__ import annotations

import math

BLOCKS = (
    "BASE",
    *(f"IN{number:02}" for number in range(12)),
    "M00",
    *(f"OUT{number:02}" for number in range(12)),
)
"""BASE is the text encoder; IN, M and OUT are the UNet's input, middle and output blocks."""

_ATTENTION = (
    "BASE", "IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "M00",
    *(f"OUT{number:02}" for number in range(3, 12)),
)  # fmt: skip
_XL_ATTENTION = ("BASE", "IN04", "IN05", "IN07", "IN08", "M00", *(f"OUT{number:02}" for number in range(6)))
_XL = ("BASE", *(f"IN{n:02}" for n in range(9)), "M00", *(f"OUT{n:02}" for n in range(9)))
_FORMS = {len(blocks): blocks for blocks in (_XL_ATTENTION, _ATTENTION, _XL, BLOCKS)}

PRESETS = {
    "NONE": "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0",
    "ALL": "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
    "INS": "1,1,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0",
    "IND": "1,0,0,0,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "INALL": "1,1,1,1,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "MIDD": "1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0",
    "OUTD": "1,0,0,0,0,0,0,0,1,1,1,1,0,0,0,0,0",
    "OUTS": "1,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1",
    "OUTALL": "1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1",
    "ALL0.5": "0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5",
}
"""The lists that the extension comes with, by name."""


def block_weights(text: str) -> tuple[float, ...] | None:
    """A factor for each of :data:`BLOCKS`; None for a text that is no list of 12, 17, 20 or 26 numbers and names none.

    >>> block_weights("INS")[:5]
    (1.0, 0.0, 1.0, 1.0, 0.0)
    """
    words = PRESETS.get(text.strip(), text).split(",")
    names = _FORMS.get(len(words))
    if names is None:
        return None
    try:
        weights = dict(zip(names, map(float, words), strict=True))
    except ValueError:
        return None
    if not all(map(math.isfinite, weights.values())):
        return None
    return tuple(weights.get(block, 0.0) for block in BLOCKS)
