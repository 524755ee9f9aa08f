"""The tabs of the page.  A drop-in folder: each file registers a :class:`Tab` through ``register_ui_tabs``.

Importing these files must not import gradio (the command line and the worker load them too): a tab's ``build`` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from webui.ui.context import PageContext


@dataclass(frozen=True, kw_only=True)
class Tab:
    """A tab of the page.

    ``id`` is unique and becomes the element id ``tab_<id>``; tabs stand in the order of ``order`` (built-in: 10, 20,
    30).  ``build`` runs once, inside the open tab, and creates Gradio components there.
    """

    id: str
    label: str
    order: int
    build: Callable[[PageContext], None]
