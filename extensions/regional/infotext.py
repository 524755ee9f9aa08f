"""Options <-> the pairs of a picture's text, by the keys of hako-mikan/sd-webui-regional-prompter (``scripts/rp.py``).

What that extension does not have follows under keys of the same kind.  Of its own pictures those with regions found by
prompt words are not understood, and their keys are left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import grid
from .prompts import BREAK, LINES

if TYPE_CHECKING:
    from .module import Options

ACTIVE, DIVIDE = "RP Active", "RP Divide mode"
FLAGS = {
    "RP Use Base": "use_base",
    "RP Use Common": "use_common",
    "RP Use Ncommon": "use_common_negative",
}
TEXTS = {
    "RP Ratios": "ratios",
    "RP Base Ratios": "base_ratio",
    "RP Region weights": "weights",
    "RP Region mask": "mask",
}
SUBMODES = {"Columns": grid.COLUMNS, "Rows": grid.ROWS, "Horizontal": grid.COLUMNS, "Vertical": grid.ROWS}
NEUTRAL = {
    "RP Mask submode": None,
    "RP Prompt submode": None,
    "RP threshold": None,
    "RP Options": ("", "[]", '["["]'),
    "RP Change AND": ("False",),
    "RP LoRA Neg Te Ratios": ("0", "1"),
    "RP LoRA Neg U Ratios": ("0", "1"),
    "RP LoRA Stop Step": ("0", ""),
    "RP LoRA Hires Stop Step": ("0", ""),
}
"""Keys that mean nothing here with these values (None: with any)."""


def write(options: Options) -> dict[str, str]:
    """The pairs; texts that are empty are left out."""
    found = {
        ACTIVE: "True",
        DIVIDE: "Mask" if options.mask else "Matrix",
        "RP Matrix submode": options.mode,
        "RP Calc Mode": options.method,
        **{key: str(getattr(options, field)) for key, field in FLAGS.items()},
        **{key: text for key, field in TEXTS.items() if (text := getattr(options, field))},
    }
    return found | ({"RP Separator": LINES} if options.separator == LINES else {})


def read(fields: dict[str, str]) -> list[dict[str, Any]]:
    """The options of the one use that a text tells of, whose keys are taken out; none in a text without any."""
    if fields.get(ACTIVE) != "True" or fields.get(DIVIDE, "Matrix") not in ("Matrix", "Mask", *SUBMODES):
        return []
    fields.pop(ACTIVE)
    divide = fields.pop(DIVIDE, "Matrix")
    submode = fields.pop("RP Matrix submode", grid.COLUMNS)
    options: dict[str, Any] = {
        "mode": SUBMODES.get(divide) or SUBMODES.get(submode, submode),
        "method": fields.pop("RP Calc Mode", "Attention"),
        "separator": fields.pop("RP Separator", BREAK),
        **{field: fields.pop(key, "False") == "True" for key, field in FLAGS.items()},
        **{field: fields.pop(key) for key, field in TEXTS.items() if key in fields},
    }
    if fields.get("RP Flip") in ("True", "False") and fields.pop("RP Flip") == "True":
        options["ratios"] = options.get("ratios", "").translate(str.maketrans(",;", ";,"))
    for key, values in NEUTRAL.items():
        if key in fields and (values is None or fields[key] in values):
            del fields[key]
    return [options]
