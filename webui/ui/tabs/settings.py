"""The Settings tab: what plugins and the page itself let a person set, section by section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.ui.tabs import Tab

if TYPE_CHECKING:
    from webui.ui.context import PageContext


def build(context: PageContext) -> None:
    """Create the tab's components."""
    from webui.ui.settings import build_settings

    build_settings(context)


@hookimpl
def register_ui_tabs() -> Sequence[Tab]:
    """The built-in tab."""
    return [Tab(id="settings", label="Settings", order=90, build=build)]
