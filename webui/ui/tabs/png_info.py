"""The PNG Info tab: what a picture's file says about its making, and the proof by making it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.ui.tabs import Tab

if TYPE_CHECKING:
    from webui.ui.context import PageContext


def build(context: PageContext) -> None:
    """Create the tab's components."""
    from webui.ui.inspection import build_png_info

    build_png_info(context)


@hookimpl
def register_ui_tabs() -> Sequence[Tab]:
    """The built-in tab."""
    return [Tab(id="pnginfo", label="PNG Info", order=30, build=build)]
