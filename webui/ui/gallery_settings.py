"""Settings of the page that change how pictures are shown, registered as an extension's are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from webui.hooks import hookimpl
from webui.option_boxes import option
from webui.plugins.own_settings import SettingsSection

NAME = "gallery"


@dataclass(frozen=True)
class GallerySettings:
    """How the gallery shows a job's pictures."""

    columns: int = option(3, "Pictures beside each other", low=1, high=8, step=1)
    open_first: bool = option(False, "Open the first picture of several at once")


@hookimpl
def register_settings() -> Sequence[SettingsSection]:
    """The section of the gallery."""
    return [SettingsSection(name=NAME, label="Gallery", options=GallerySettings)]
