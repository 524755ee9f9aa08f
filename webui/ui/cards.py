"""The cards of model files on a tab; called by the form of txt2img and img2img."""

from __future__ import annotations

from webui.ui.context import PageContext
from webui.ui.widgets.cards import ModelCards


def add_cards(context: PageContext, tab: str) -> None:
    """Create the inner tabs, to stand before the row with the class ``workbench`` in the open tab."""
    context.cards.append(ModelCards(tab=tab, elem_id=f"{tab}_extra_networks"))
