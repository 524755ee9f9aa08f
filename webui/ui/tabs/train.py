"""The Train tab: a folder of pictures becomes a LoRA, an embedding, a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.ui.tabs import Tab

if TYPE_CHECKING:
    from webui.ui.context import PageContext


def build(context: PageContext) -> None:
    """Create the tab's components."""
    from webui.ui.training import build_train

    build_train(context)


@hookimpl
def register_ui_tabs() -> Sequence[Tab]:
    """The built-in tab."""
    return [Tab(id="train", label="Train", order=40, build=build)]
