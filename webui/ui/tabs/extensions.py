"""The Extensions tab: what is installed, what it says of itself, and how it comes and goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.ui.tabs import Tab

if TYPE_CHECKING:
    from webui.ui.context import PageContext


def build(context: PageContext) -> None:
    """Create the tab's components."""
    from webui.ui.widgets.extensions import ExtensionManager

    ExtensionManager(elem_id="extensions_manager")


@hookimpl
def register_ui_tabs() -> Sequence[Tab]:
    """The built-in tab."""
    return [Tab(id="extensions", label="Extensions", order=80, build=build)]
