"""Puts the panels that plugins registered into a tab; one that fails leaves a sentence in its place."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import gradio as gr
from gradio.context import Context

from webui.engine.access import access_to
from webui.plugins.calling import FAILED
from webui.plugins.manager import Plugins, extension_named
from webui.ui import texts
from webui.ui.panels import TABS, Panel, PanelContext

if TYPE_CHECKING:
    from webui.engine.engine import Engine
    from webui.ui.context import PageContext

HOOK = "register_ui_panels"


def check_panels(plugins: Plugins) -> None:
    """Name the panels that stand in no tab; called once, before the tabs are built."""
    for panel, owner in plugins.owned(HOOK).values():
        unknown = [tab for tab in panel.tabs if tab not in TABS]
        if unknown or not panel.tabs:
            said = f'the tab "{unknown[0]}"' if unknown else "no tab"
            plugins.note(owner, HOOK, f"{owner}: the panel {panel.id} is for {said}; there are {', '.join(TABS)}.")


class Gallery(Protocol):
    """A tab's results: the ids of the pictures in the gallery, and the place of the chosen one, as components."""

    outputs: Any
    selected: Any


def panel_context(page: PageContext, tab: str, fields: Mapping[str, Any], results: Gallery) -> PanelContext:
    """What the panels of a tab may use."""
    return PanelContext(
        tab=tab,
        fields=MappingProxyType(fields),
        pictures=results.outputs,
        selected=results.selected,
        notice=page.notice,
        access=access_to(page.engine),
    )


def add_panels(engine: Engine, context: PanelContext) -> None:
    """Create the panels of the tab at the open place."""
    owned = [(panel, owner) for panel, owner in engine.plugins.owned(HOOK).values() if context.tab in panel.tabs]
    for panel, owner in sorted(owned, key=lambda pair: (pair[0].order, pair[0].id)):
        element = f"{context.tab}_panel_{panel.id}"
        with gr.Accordion(panel.label, open=False, elem_id=element, elem_classes=["panel"]):
            with gr.Column(min_width=200) as place:
                built = _built(engine.plugins, panel, owner, context)
            if not built:
                place.visible = False  # what it had begun
                gr.HTML(texts.notes([_why(engine.plugins, panel, owner)]), elem_id=f"{element}_problem")


def _built(plugins: Plugins, panel: Panel, owner: str, context: PanelContext) -> bool:
    around: Any = Context.block
    try:
        return plugins.run(owner, HOOK, partial(panel.build, context)) is not FAILED
    finally:
        Context.block = around  # a build that was given up left its own here


def _why(plugins: Plugins, panel: Panel, owner: str) -> str:
    name = extension_named(owner)
    problems = [one for one in plugins.journal.problems if one.extension == name and one.hook == HOOK]
    why = f": {problems[-1].sentence}" if problems else "."
    return f'The panel "{panel.label}" could not be built; it is left empty{why}'
