"""The extensions widget: the list of extensions, and the way from an address to something installed.

Its script asks the API for everything, so that the page can do no more than the API allows whoever looks at it.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui.ui.assets import read_asset


class ExtensionManager(gr.HTML):  # type: ignore[misc]  # gradio is untyped
    """Cards of the extensions, the trash, and a form that shows what would be installed before it is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            value=None,
            html_template=read_asset("extensions.html"),
            js_on_load=read_asset("extensions.js"),
            apply_default_css=False,
            elem_classes=["extension-manager"],
            **options,
        )

    def api_info(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "object"}
