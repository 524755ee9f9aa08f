"""Parts of a tab that are no options of a module: buttons, viewers.  A drop-in folder of ``register_ui_panels``.

Importing these files must not import gradio: a panel's ``build`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from webui.engine.access import Access

TABS = ("txt2img", "img2img", "extras")
"""The tabs that panels can stand in, by id."""


@dataclass(frozen=True, kw_only=True)
class PanelContext:
    """What a panel may use while it is built.

    ``tab`` is the id of the tab.  ``fields`` are the tab's components by the name of the field ("prompt", "width", …).
    ``pictures`` holds the ids of the pictures in the gallery, a list, ``selected`` the place of the chosen one; a
    picture's file is ``access.output(id)``.  ``notice`` shows sentences (``webui.ui.notices.connect``).
    """

    tab: str
    fields: Mapping[str, Any]
    pictures: Any
    selected: Any
    notice: Any
    access: Access


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel below the settings of one or more tabs, closed until a person opens it.

    ``id`` is unique and becomes a part of the element id, ``<tab>_panel_<id>``; panels stand in the order of ``order``.
    ``build`` runs once for each of ``tabs``, inside the panel, and creates Gradio components there.
    """

    id: str
    label: str
    tabs: tuple[str, ...] = ("txt2img", "img2img")
    order: int = 100
    build: Callable[[PanelContext], None]
