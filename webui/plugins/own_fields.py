"""The infotext fields that plugins registered, each so that what fails in it is named and harms nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from webui.metadata.fields import InfotextField, wrong
from webui.plugins.calling import FAILED
from webui.plugins.manager import Plugins, extension_named

HOOK = "register_infotext_fields"


def registered_fields(plugins: Plugins) -> tuple[InfotextField, ...]:
    """The fields that can be used, in the order of registration; the others are named."""
    found: list[InfotextField] = []
    for field, owner in plugins.owned(HOOK).values():
        why = wrong(field)
        if why:
            plugins.note(owner, HOOK, f"{owner}: the infotext field {field.key} was left out: {why}.")
        elif extension_named(owner) is None:
            found.append(field)
        else:
            found.append(_guarded(plugins, owner, field))
    return tuple(found)


def _guarded(plugins: Plugins, owner: str, field: InfotextField) -> InfotextField:
    def read(text: str) -> Any:
        try:
            return field.read(text)
        except (ValueError, OverflowError):
            raise
        except Exception as error:
            raise ValueError(plugins.failure(owner, HOOK, f"reading {field.key}", error)) from error

    return replace(field, read=read, write=_writer(plugins, owner, field.write) if field.write else None)


def _writer(plugins: Plugins, owner: str, write: Callable[[Any], str]) -> Callable[[Any], str]:
    def guarded(value: Any) -> str:
        text = plugins.run(owner, HOOK, partial(write, value))
        return "" if text is FAILED else str(text)

    return guarded
