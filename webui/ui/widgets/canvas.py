"""The picture canvas: holds a start image by its digest, and what is painted over it: a mask, colours, or both.

The file's bytes go to the input store as they are; the mask and the painted picture are one upload each when Generate
is pressed.  ``gr.ImageEditor`` would re-encode the picture and ship it several times a stroke.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import gradio as gr

from webui.ui.assets import read_asset


class Paint(StrEnum):
    """What the strokes on a canvas are, as its page part names it."""

    NOTHING = "no"
    MASK = "yes"
    COLOUR = "colour"
    COLOUR_AND_MASK = "colour-mask"


class PictureCanvas(gr.HTML):  # type: ignore[misc]  # gradio is untyped
    """A picture to start from, on which ``paint`` may be painted.

    Value: None or ``{"image": sha256, "name": str, "width": px, "height": px, "mask": sha256 or None, "painted": sha256
    or None}``, where ``painted`` is the picture with its colours; from Python ``{"image": sha256, "name": str}`` is
    enough.  Mouse, pen and touch paint; files are chosen, dropped or pasted.
    """

    def __init__(self, *, paint: Paint, label: str, **options: Any) -> None:
        super().__init__(
            value=None,
            label=label,
            html_template=read_asset("canvas.html", label=label, paint=paint),
            js_on_load=read_asset("canvas.js"),
            apply_default_css=False,
            elem_classes=["picture-canvas"] if paint is Paint.NOTHING else ["picture-canvas", "paintable"],
            **options,
        )

    def api_info(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "object"}
