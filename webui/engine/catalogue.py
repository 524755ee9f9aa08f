"""The checkpoints as the page shows them, with what their files say about themselves."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from webui import families
from webui.checkpoints.library import ModelEntry
from webui.checkpoints.loaders import Header
from webui.errors import WebUIError
from webui.plugins.manager import Plugins


@dataclass(frozen=True)
class CheckpointEntry:
    """A checkpoint as the page shows it; what needs the file's header is read when asked for."""

    entry: ModelEntry
    plugins: Plugins

    @property
    def name(self) -> str:
        """The name that requests use."""
        return self.entry.name

    @property
    def title(self) -> str:
        """The name with suffix and, when it is known, the short hash."""
        return self.entry.title

    @property
    def native_size(self) -> int:
        """The picture side in pixels that the model was trained at; 512 when the file cannot tell."""
        header = self._header()
        family = families.find_family(header, self.plugins.families) if header else None
        return family.native_size(header) if family and header else 512

    @property
    def note(self) -> str:
        """What the model says about itself in one line, "" for most."""
        header = self._header()
        return header.metadata.get("starter.note", "") if header else ""

    @property
    def examples(self) -> tuple[str, ...]:
        """Example prompts that the model comes with."""
        header = self._header()
        return tuple(filter(None, header.metadata.get("starter.examples", "").split("\n"))) if header else ()

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Recommended "sampler", "schedule", "steps" and "cfg_scale", as far as the model states them."""
        header = self._header()
        return header_defaults(header) if header else {}

    def _header(self) -> Header | None:
        try:
            return self.plugins.formats.read_header(self.entry.path)
        except WebUIError:
            return None


def header_defaults(header: Header) -> dict[str, Any]:
    """The recommended settings in a file's metadata (``starter.defaults``: "sampler=Euler; cfg_scale=4")."""
    pairs = (part.split("=", 1) for part in header.metadata.get("starter.defaults", "").split(";") if "=" in part)
    kinds: dict[str, type] = {"steps": int, "cfg_scale": float, "sampler": str, "schedule": str}
    found: dict[str, Any] = {}
    for name, value in ((name.strip(), value.strip()) for name, value in pairs):
        if name in kinds:
            with suppress(ValueError):  # a file's advice that is no number is no advice
                found[name] = kinds[name](value)
    return found


def with_advice(body: Mapping[str, Any], model: CheckpointEntry) -> dict[str, Any]:
    """A request's plain values with what was not said filled in as the model recommends: size, sampler, steps, CFG.

    What was said stays; parts that are no objects stay, too, for ``GenerationRequest.from_dict`` to refuse.
    """
    sampling, size = body.get("sampling", {}), body.get("size", {})
    filled = dict(body)
    if isinstance(sampling, Mapping):
        filled["sampling"] = {**model.defaults, **sampling}
    if isinstance(size, Mapping):
        filled["size"] = {"width": model.native_size, "height": model.native_size, **size}
    return filled
