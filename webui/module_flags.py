"""The flags of ``webui generate`` for the conditioning modules, made from their options records.

--regional                       use it with what it recommends
--regional-grid 2x1              an option; it uses the module, too
--controlnet2-weight 0.5         an option of the second use
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from webui.conditioning import ConditioningModule
from webui.conditioning.modules import label_of, units_of
from webui.option_boxes import Box, Kind, all_boxes

PREFIX = "module-"
"""Before a module's name where the command line has a flag of that name already."""
_METAVARS = {int: "N", float: "X", str: "TEXT"}
_SPOKEN = {
    Kind.PICTURE: "FILE",
    Kind.MASK: "FILE",
    Kind.PAINT: "FILE",
    Kind.MODEL: "NAME",
    Kind.PREPROCESSOR: "NAME",
}
_PLACE = "module:"


@dataclass(frozen=True)
class Flag:
    """One flag: of a module's unit (from 0) as a whole, or with a ``box`` of an option of it."""

    module: ConditioningModule
    unit: int
    name: str
    box: Box | None = None
    kind: Any = bool

    @property
    def place(self) -> str:
        """Where its value is kept among the parsed ones."""
        return f"{_PLACE}{self.module.name}:{self.unit}:{self.box.name if self.box else ''}"

    def add_to(self, group: Any) -> None:
        """Add it; what is not said does not come up among the parsed values."""
        shared: dict[str, Any] = {"dest": self.place, "default": argparse.SUPPRESS}
        if self.box is None:
            group.add_argument(f"--{self.name}", action="store_true", help=self._use(), **shared)
            return
        shared["help"] = argparse.SUPPRESS if self.unit else _help(self.box)
        choices = None if self.box.choices is None else _choices(self.box)
        if self.kind is bool:
            group.add_argument(f"--{self.name}", action=argparse.BooleanOptionalAction, **shared)
        elif choices is not None and all(isinstance(one, str) for one in choices):
            group.add_argument(f"--{self.name}", choices=choices, metavar="WORDS", **shared)
        else:
            read = self.kind if self.kind in _METAVARS else _json
            metavar = _SPOKEN.get(self.box.kind, _METAVARS.get(self.kind, "JSON"))
            group.add_argument(f"--{self.name}", type=read, metavar=metavar, **shared)

    def _use(self) -> str:
        if self.unit == 0:
            return "use it with what it recommends; any option below uses it, too"
        return f"use it a {self.unit + 1}. time; each option again with --{self.name}-"


def _choices(box: Box) -> list[Any]:
    return list(dict.fromkeys([*(box.choices_for(False) or ()), *(box.choices_for(True) or ())]))


def _json(text: str) -> Any:
    """The value of a JSON text; what is none is a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _help(box: Box) -> str:
    limits = f", {box.low:g} to {box.high:g}" if box.low is not None and box.high is not None else ""
    choices = ", ".join(map(str, _choices(box)))
    is_told = isinstance(box.default, int | float | str) and box.default != ""
    told = [box.label + limits, f": {choices}" if choices else "", f" (default: {box.default})" if is_told else ""]
    return "".join(told).replace("%", "%%")


def flags(modules: Iterable[ConditioningModule], taken: Iterable[str]) -> Iterator[Flag]:
    """The flags of all modules; ``taken`` are the names that others have, without dashes."""
    taken = set(taken)
    for module in modules:
        own = list(_named(module, _words(module.name)))
        if any(name in taken for flag in own for name in (flag.name, f"no-{flag.name}")):
            own = list(_named(module, PREFIX + _words(module.name)))
        taken |= {flag.name for flag in own}
        yield from own


def _words(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-") or "unnamed"


def _named(module: ConditioningModule, name: str) -> Iterator[Flag]:
    kinds = get_type_hints(module.options)
    for unit in range(units_of(module)):
        start = f"{name}{unit + 1}" if unit else name
        yield Flag(module, unit, start)
        for box in all_boxes(module.options):
            yield Flag(module, unit, f"{start}-{_words(box.name)}", box, kinds[box.name])


def add_flags(parser: argparse.ArgumentParser, modules: Iterable[ConditioningModule], taken: Iterable[str]) -> None:
    """Add the flags of all modules to the command line, a group for each module."""
    groups: dict[str, Any] = {}
    for flag in flags(modules, taken):
        name = flag.module.name
        if name not in groups:
            groups[name] = parser.add_argument_group(f"the module {label_of(flag.module)}")
        flag.add_to(groups[name])


def said(parsed: argparse.Namespace, modules: Iterable[ConditioningModule], keep: Callable[[Path], str]) -> list[Any]:
    """The uses that the flags ask for, as plain values; ``keep`` stores a picture file and answers its SHA-256."""
    uses = []
    for module in modules:
        pictures = {box.name for box in all_boxes(module.options) if box.is_picture}
        for unit in range(units_of(module)):
            start = f"{_PLACE}{module.name}:{unit}:"
            given = {name.removeprefix(start): v for name, v in vars(parsed).items() if name.startswith(start)}
            if not given:
                continue
            given.pop("", None)
            options = {name: keep(Path(v)) if name in pictures and v else v for name, v in given.items()}
            uses.append({"name": module.name, "options": options})
    return uses
