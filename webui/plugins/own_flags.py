"""The flags of the command line that plugins registered, ``--<group>-<field>``, made from options records."""

from __future__ import annotations

import argparse
from typing import Any, get_type_hints

from webui.option_boxes import Box, all_boxes
from webui.plugins.manager import Plugins
from webui.plugins.own_settings import FLAGS, CliOptions, registered_flags

_PLACE = "own:"
_METAVARS = {int: "N", float: "X", str: "TEXT"}


def add_own_flags(parser: argparse.ArgumentParser, plugins: Plugins) -> None:
    """Add every group below a heading of its own; one with a flag that is there already is named and left out."""
    owners = {group.name: owner for group, owner in plugins.owned(FLAGS).values()}
    for group in registered_flags(plugins):
        names = _names(group)
        clash = sorted(set(names) & set(parser._option_string_actions))
        if clash:
            owner = owners[group.name]
            plugins.note(
                owner, FLAGS, f"{owner}: the flags {group.name} were left out: {clash[0]} has a meaning already."
            )
            continue
        place = parser.add_argument_group(group.label)
        for box in all_boxes(group.options):
            _add(place, group, box, get_type_hints(group.options)[box.name])


def said(parsed: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What was said on the command line, by group and field; what was not is left out."""
    found: dict[str, dict[str, Any]] = {}
    for place, value in vars(parsed).items():
        if place.startswith(_PLACE):
            group, _, name = place.removeprefix(_PLACE).partition(":")
            found.setdefault(group, {})[name] = value
    return found


def _names(group: CliOptions) -> list[str]:
    names = [_flag(group, box) for box in all_boxes(group.options)]
    return [*names, *(f"--no-{name[2:]}" for name in names)]


def _flag(group: CliOptions, box: Box) -> str:
    return f"--{group.name}-{box.name}".replace("_", "-")


def _add(place: Any, group: CliOptions, box: Box, kind: Any) -> None:
    shared: dict[str, Any] = {
        "dest": f"{_PLACE}{group.name}:{box.name}",
        "default": argparse.SUPPRESS,
        "help": _help(box).replace("%", "%%"),
    }
    choices = box.choices_for(False)
    if kind is bool:
        place.add_argument(_flag(group, box), action=argparse.BooleanOptionalAction, **shared)
    elif choices is not None and all(isinstance(one, str) for one in choices):
        place.add_argument(_flag(group, box), choices=choices, metavar="WORDS", **shared)
    else:
        read = kind if kind in _METAVARS else str
        place.add_argument(_flag(group, box), type=read, metavar=_METAVARS[read], **shared)


def _help(box: Box) -> str:
    limits = f", {box.low:g} to {box.high:g}" if box.low is not None and box.high is not None else ""
    choices = ", ".join(map(str, box.choices_for(False) or ()))
    told = f" (default: {box.default})" if box.default != "" else ""
    return f"{box.label}{limits}{f': {choices}' if choices else ''}{told}"
