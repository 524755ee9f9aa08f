"""The cards widget: the inner tabs of txt2img and img2img, and behind them the model files as cards.

Its script asks the API for the cards that are on the screen, so that ten thousand files cost no more than ten, and
writes into the prompts itself; only the choice of a checkpoint passes through Gradio.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui.ui.assets import read_asset


class ModelCards(gr.HTML):  # type: ignore[misc]  # gradio is untyped
    """Tabs "Generation", "Textual Inversion", "Hypernetworks", "Checkpoints", "Lora"; the first shows the workbench.

    Stands before the row with the class ``workbench`` in the tab ``tab``.  Event: ``chosen``, with the ``name`` of a
    checkpoint in its data.
    """

    def __init__(self, *, tab: str, **options: Any) -> None:
        super().__init__(
            value=None,
            html_template=read_asset("cards.html", tab=tab),
            js_on_load=read_asset("cards.js"),
            apply_default_css=False,
            elem_classes=["model-cards"],
            **options,
        )

    def api_info(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "object"}
