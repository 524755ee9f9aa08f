"""Settings and command-line flags of plugins, each a frozen record of options, and how a plugin gets their values.

What can change a pixel belongs to the request, never here: settings are folders, limits, appearance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import MISSING, dataclass
from typing import TYPE_CHECKING, Any

from webui.checkpoints.library import FOLDERS
from webui.errors import RequestError, unknown_name
from webui.option_boxes import Box, all_boxes, checked, problem

if TYPE_CHECKING:
    from webui.plugins.manager import Plugins

SETTINGS = "register_settings"
FLAGS = "register_cli_options"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class SettingsSection:
    """Settings that a person changes while the program runs, and that stay.

    ``name`` is of small letters, digits and ``_``; in ``/sdapi/v1/options`` a field is called ``<name>_<field>``.
    ``options`` is a frozen dataclass with a default for every field (``webui.option_boxes.option``).  Fields that are
    ``guarded`` change on the page alone, not through the API: folders, and what opens this computer to others.
    """

    name: str
    label: str
    options: type
    guarded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CliOptions:
    """Flags of the command line, ``--<name>-<field>``, read once when the program starts.

    ``name`` and ``options`` as in :class:`SettingsSection`; ``label`` is the heading of the flags in ``--help``.
    """

    name: str
    label: str
    options: type


@dataclass(frozen=True)
class OwnSettings:
    """Handed to hooks as ``settings``, and a part of ``Access``.

    ``settings_of(name)`` is the record of a section with its values at this moment (in the worker: when the job began),
    ``cli_of(name)`` that of flags.  Both raise RequestError for a name that nobody registered.
    """

    settings_of: Callable[[str], Any]
    cli_of: Callable[[str], Any]


def key_of(section: SettingsSection, field: str) -> str:
    """A field's name among all settings."""
    return f"{section.name}_{field}"


def registered_sections(plugins: Plugins, taken: Container[str] = ()) -> tuple[SettingsSection, ...]:
    """The sections that can be used; the others are named.  ``taken`` are keys of settings that are there already."""
    found: list[SettingsSection] = []
    keys: set[str] = set()
    for section, owner in plugins.owned(SETTINGS).values():
        wrong = _wrong(section)
        own = set() if wrong else {key_of(section, box.name) for box in all_boxes(section.options)}
        clash = [key for key in sorted(own) if key in keys or key in taken]
        unknown = [] if wrong else [name for name in section.guarded if key_of(section, name) not in own]
        if clash:
            wrong = f'a setting of the name "{clash[0]}" is there already'
        elif unknown:
            wrong = f'it guards "{unknown[0]}", which it does not have'
        if wrong:
            plugins.note(owner, SETTINGS, f"{owner}: the settings {section.name} were left out: {wrong}.")
            continue
        keys |= own
        found.append(section)
    return tuple(found)


def registered_flags(plugins: Plugins) -> tuple[CliOptions, ...]:
    """The groups of flags that can be used; the others are named."""
    found: list[CliOptions] = []
    for group, owner in plugins.owned(FLAGS).values():
        wrong = _wrong(group)
        if wrong:
            plugins.note(owner, FLAGS, f"{owner}: the flags {group.name} were left out: {wrong}.")
        else:
            found.append(group)
    return tuple(found)


def _wrong(part: SettingsSection | CliOptions) -> str | None:
    """Why a part cannot be used, None when it can."""
    if not _NAME.fullmatch(part.name):
        return "a name begins with a small letter and holds small letters, digits and _"
    wrong = problem(part.options, tuple(FOLDERS))
    if wrong:
        return wrong
    for box in all_boxes(part.options):
        if box.default is MISSING:
            return f"its field {box.name} has no default"
        if not isinstance(box.default, bool | int | float | str):
            return f"its field {box.name} is no flag, number or text"
        if box.is_picture:
            return f"its field {box.name} is a picture, which belongs to a request"
    try:
        part.options()
    except Exception as error:
        return f"its defaults do not fit ({type(error).__name__}: {error})"
    return None


def flag_records(groups: tuple[CliOptions, ...], said: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The record of every group by its name, with what was said on the command line.  Raises RequestError."""
    return {group.name: checked(group.options, said.get(group.name, {}), f"--{group.name}") for group in groups}


def finder(kind: str, records: Mapping[str, Any]) -> Callable[[str], Any]:
    """The function from a name to its record."""

    def find(name: str) -> Any:
        if name not in records:
            raise unknown_name(kind, name, records)
        return records[name]

    return find


def plain_fields(record: Any, boxes: list[Box]) -> dict[str, Any]:
    """A record's values by field."""
    return {box.name: getattr(record, box.name) for box in boxes}


def fitting(section: SettingsSection, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of values by field those that the section can have: a file may be of another version of a plugin."""
    kept: dict[str, Any] = {}
    for name, value in given.items():
        try:
            checked(section.options, {**kept, name: value}, section.label)
        except RequestError:
            continue
        kept[name] = value
    return kept
