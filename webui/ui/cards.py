"""The cards of model files on a tab; called by the form of txt2img and img2img."""

from __future__ import annotations

from webui.conditioning.extra_networks import NetworkKind
from webui.engine.cards import SHOWN
from webui.ui.context import PageContext
from webui.ui.widgets.cards import ModelCards, MoreCards


def add_cards(context: PageContext, tab: str) -> None:
    """Create the inner tabs, to stand before the row with the class ``workbench`` in the open tab."""
    more = [_cards_of(kind) for kind in context.engine.network_kinds() if kind.folders and kind.name not in SHOWN]
    context.cards.append(ModelCards(tab=tab, more=more, elem_id=f"{tab}_extra_networks"))


def _cards_of(kind: NetworkKind) -> MoreCards:
    return MoreCards(kind=kind.name, title=kind.title, words=kind.words, strength=kind.strength)
