"""The live widget: progress, time left, preview and finished pictures of the jobs that a tab started.

Its script listens to the engine's event stream itself, so that nothing of a running job passes through Gradio.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui.ui.assets import read_asset


class Live(gr.HTML):  # type: ignore[misc]  # gradio is untyped
    """Shows the job that Python names, and finds a running one again when the page is opened anew.

    Value from Python: ``{"job": id}`` follows a job, ``{"shown": id}`` says that its pictures stand in the gallery,
    ``{"error": sentence}`` shows a sentence; ``at`` makes equal values differ.  Events, each with ``job`` in its data:
    ``finished`` (the job is over), ``attached`` (the page was opened and this was its last job).  ``empty`` is the HTML
    shown before the first job.  Both stand in the template, for gradio 6.31 loses properties of its own of a component
    that is an event's output before it was on the screen.
    """

    def __init__(self, *, tab: str, empty: str = "", **options: Any) -> None:
        super().__init__(
            value=None,
            html_template=read_asset("live.html", tab=tab, empty=empty),
            js_on_load=read_asset("live.js"),
            apply_default_css=False,
            elem_classes=["live"],
            **options,
        )

    def api_info(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "object"}
