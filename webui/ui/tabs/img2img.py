"""The img2img tab: a picture and a prompt become pictures; with a mask only the masked part is painted anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.ui.tabs import Tab

if TYPE_CHECKING:
    from webui.ui.context import PageContext


def build(context: PageContext) -> None:
    """Create the tab's components."""
    from webui.ui.generation import GenerationTab

    GenerationTab(context, "img2img").build()


@hookimpl
def register_ui_tabs() -> Sequence[Tab]:
    """The built-in tab."""
    return [Tab(id="img2img", label="img2img", order=20, build=build)]
