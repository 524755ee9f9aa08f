"""What a tab may use while it is built, and what the tabs know of each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webui.prompt.tokenizer import Tokenizer

if TYPE_CHECKING:
    from webui.engine.engine import Engine
    from webui.ui.styles import StylesEditor


@dataclass(kw_only=True)
class PageContext:
    """Handed to every tab's ``build``; lives only while the page is built.

    ``top`` holds the fields at the top of the page by name (``checkpoint`` among them), ``tabs`` the ``gr.Tabs`` around
    everything, ``notice`` the widget that shows sentences (see ``notices.connect``).  ``targets`` holds, by name
    ("txt2img", "img2img", "inpaint", "extras", "pnginfo"), where a picture can be sent, ``forms`` the components of the
    fields of each tab by name.  ``initial`` are the field values of a fresh page.  ``cards`` are
    the widgets with whose event ``chosen`` a checkpoint is chosen.
    """

    engine: Engine
    top: Mapping[str, Any]
    tabs: Any
    notice: Any
    styles_editor: StylesEditor
    initial: Mapping[str, Any]
    targets: dict[str, Target] = field(default_factory=dict)
    forms: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    cards: list[Any] = field(default_factory=list)
    folder_lists: list[tuple[str, Any]] = field(default_factory=list)
    _later: list[Callable[[], None]] = field(default_factory=list)

    @property
    def checkpoint(self) -> Any:
        """The list of checkpoints at the top."""
        return self.top["checkpoint"]

    def follow_lists(self, dropdowns: Mapping[str, Any]) -> None:
        """Let lists, by field, be filled again when the page is opened or Refresh is pressed."""
        self.folder_lists += dropdowns.items()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the token counters, built when the first prompt is typed."""
        return Tokenizer()

    def when_built(self, wire: Callable[[], None]) -> None:
        """Run ``wire`` after all tabs are built, to connect events to components of other tabs."""
        self._later.append(wire)

    def finish(self) -> None:
        """Run what was put off; called once by the page."""
        for wire in self._later:
            wire()


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a picture can be sent: the components to fill, and the function from its file to their values."""

    outputs: tuple[Any, ...]
    receive: Callable[[Path], tuple[Any, ...]]
