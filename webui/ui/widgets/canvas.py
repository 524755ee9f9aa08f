"""The picture canvas: holds a start image by its digest, and a mask painted over it.

The file's bytes go to the input store as they are and the mask is one small upload when Generate is pressed;
``gr.ImageEditor`` would re-encode the picture and ship it several times a stroke.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui.ui.assets import read_asset


class PictureCanvas(gr.HTML):  # type: ignore[misc]  # gradio is untyped
    """A picture to start from, with a mask when ``paint``.

    Value: None or ``{"image": sha256, "name": str, "width": px, "height": px, "mask": sha256 or None}``; from Python
    ``{"image": sha256, "name": str}`` is enough.  Mouse, pen and touch paint; files are chosen, dropped or pasted.
    """

    def __init__(self, *, paint: bool, label: str, **options: Any) -> None:
        super().__init__(
            value=None,
            label=label,
            html_template=read_asset("canvas.html", label=label, paint="yes" if paint else "no"),
            js_on_load=read_asset("canvas.js"),
            apply_default_css=False,
            elem_classes=["picture-canvas", "paintable"] if paint else ["picture-canvas"],
            **options,
        )

    def api_info(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "object"}
