"""The panels of all conditioning modules of a tab: one component, however many modules and units there are.

Every component costs the page's start a millisecond and each visitor some kilobytes; three units of a ControlNet would
be a hundred.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui.ui.assets import read_asset


class ModulePanels(gr.HTML):  # type: ignore[misc]  # gradio is untyped
    """The uses of modules that a person asks for; ``panels`` is their HTML (``module_panels``).

    Value, from and to Python: a list of ``{"name": module, "options": {name: value}}``, the units that are enabled.
    Masks are uploaded when ``window.webui.modulesOf(tab, value)`` asks for the value.
    """

    def __init__(self, *, panels: str, **options: Any) -> None:
        super().__init__(
            value=None,
            html_template=panels,
            js_on_load=read_asset("modules.js"),
            apply_default_css=False,
            elem_classes=["module-panels"],
            **options,
        )

    def api_info(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "array", "items": {"type": "object"}}
