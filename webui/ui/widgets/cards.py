"""The cards widget: the inner tabs of txt2img and img2img, and behind them the model files as cards.

Its script asks the API for the cards that are on the screen, so that ten thousand files cost no more than ten, and
writes into the prompts itself; only the choice of a checkpoint passes through Gradio.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import gradio as gr

from webui.ui.assets import read_asset


@dataclass(frozen=True, kw_only=True)
class MoreCards:
    """An inner tab for a kind of files that an extension added.

    A card writes ``<word:name:strength>`` with the first of the ``words``, and knows the tag by each of them;
    ``strength`` is the usual one, or empty where the tag has none.
    """

    kind: str
    title: str
    words: Sequence[str]
    strength: str


class ModelCards(gr.HTML):  # type: ignore[misc]  # gradio is untyped
    """Tabs "Generation", "Textual Inversion", "Hypernetworks", "Checkpoints", "Lora" and those of ``more`` kinds.

    The first shows the workbench.

    Stands before the row with the class ``workbench`` in the tab ``tab``.  Event: ``chosen``, with the ``name`` of a
    checkpoint in its data.
    """

    def __init__(self, *, tab: str, more: Sequence[MoreCards] = (), **options: Any) -> None:
        kinds = quote(json.dumps([[one.kind, one.title, list(one.words), one.strength] for one in more]), safe="")
        super().__init__(
            value=None,
            html_template=read_asset("cards.html", tab=tab, kinds=kinds),
            js_on_load=read_asset("cards.js"),
            apply_default_css=False,
            elem_classes=["model-cards"],
            **options,
        )

    def api_info(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "object"}
