"""The Extras tab: finished pictures are made larger, their faces mended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.ui.tabs import Tab

if TYPE_CHECKING:
    from webui.ui.context import PageContext


def build(context: PageContext) -> None:
    """Create the tab's components."""
    from webui.ui.extras import ExtrasTab

    ExtrasTab(context).build()


@hookimpl
def register_ui_tabs() -> Sequence[Tab]:
    """The built-in tab."""
    return [Tab(id="extras", label="Extras", order=25, build=build)]
