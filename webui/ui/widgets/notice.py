"""The notice widget: sentences that appear in the corner and go by themselves."""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui.ui.assets import read_asset


class Notice(gr.HTML):  # type: ignore[misc]  # gradio is untyped
    """Shows ``{"text": sentence, "good": bool, "at": time}`` whenever Python sets it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            value=None,
            html_template='<div class="notices" role="status" aria-live="polite"></div>',
            js_on_load=read_asset("notice.js"),
            apply_default_css=False,
            **options,
        )

    def api_info(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "object"}
