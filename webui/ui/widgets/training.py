"""The two widgets of the Train tab: the form, and the training that is under way.

The form is one component instead of eighty: every component costs the page's start a millisecond and each visitor
some kilobytes.  The live half asks the API itself, so that nothing of a running training passes through Gradio.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui.ui.assets import read_asset


class TrainingForm(gr.HTML):  # type: ignore[misc]  # gradio is untyped
    """All fields of a training; ``form`` is their HTML, with the names of ``training_form``.

    Value from Python, each part when it is there: ``{"set": {field: value}}`` fills fields, ``{"checked": {"turn",
    "html", "items"}}`` says what a folder holds, ``{"checkpoints": [[title, name], ...]}`` is the list of models;
    ``at`` makes equal values differ.  Events, each with ``values`` in its data: ``look`` (the folder is to be read;
    ``turn`` comes back with the answer), ``begin`` (Train was pressed), ``refresh`` (look for models again).
    """

    def __init__(self, *, form: str, **options: Any) -> None:
        super().__init__(
            value=None,
            html_template=form,
            js_on_load=read_asset("training_form.js"),
            apply_default_css=False,
            elem_classes=["training-form"],
            **options,
        )

    def api_info(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "object"}


class TrainingLive(gr.HTML):  # type: ignore[misc]  # gradio is untyped
    """A training: progress, loss curve, samples, the file; finds a running one again when the page is opened anew.

    Value from Python: ``{"job": id}`` shows a training, ``{"error": sentence}`` a sentence; ``at`` makes equal values
    differ.  Events: ``changed`` (the list of trainings may be another one), ``settings`` and ``use``, with ``job`` in
    their data (its settings are wanted in the form; what it made is to be used).  ``empty`` is the HTML before the
    first training.
    """

    def __init__(self, *, empty: str, **options: Any) -> None:
        super().__init__(
            value=None,
            html_template=read_asset("training_live.html", empty=empty),
            js_on_load=read_asset("training_live.js"),
            apply_default_css=False,
            elem_classes=["live", "training-live"],
            **options,
        )

    def api_info(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "object"}
