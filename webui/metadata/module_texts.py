"""Uses of conditioning modules <-> pairs of a ``parameters`` text.

Where a module does not write a text of its own, a use is one pair:

    Regional: "Grid: 2x1, Ratio: 0.3"

from the second use on ``Regional 2: ...``; the keys are the options' labels, what is as by default is left out, and
without any the value is ``enabled``.  Any options come back from it exactly, and the uses in their order.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, get_args, get_origin, get_type_hints

from webui.conditioning import ConditioningModule
from webui.conditioning.modules import options_of, units_of
from webui.errors import RequestError
from webui.metadata.infotext import pairs_of, quote
from webui.option_boxes import Box, all_boxes, checked_value
from webui.records import plain
from webui.request import ModuleUse

Modules = Mapping[str, ConditioningModule]
Ask = Callable[[ConditioningModule, str, tuple[Any, ...]], Any]
"""What a function of a module (by name) answers; None when it failed, or answered what it must not."""
ENABLED = "enabled"
"""The value of a use whose options are all as by default."""
CLASH = " module"
"""Behind the name of a module that is called like a key of the program itself."""
_FLAGS = {"True": True, "False": False}


def as_key(name: str) -> str:
    """``name`` with only what a key may hold: word characters, spaces, ``-`` and ``/``, at least two."""
    key = re.sub(r"[^\w \-/]", " ", name).strip(" -/")
    return key if len(key) > 1 else f"Extra {key}".strip()


def asked(module: ConditioningModule, function: str, arguments: tuple[Any, ...]) -> Any:
    """The plain way to ask: what fails is raised."""
    return getattr(module, function)(*arguments)


def pairs(uses: Sequence[ModuleUse], modules: Modules, ask: Ask = asked) -> dict[str, str]:
    """The pairs of a resolved request's uses, in their order."""
    found: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    for use in uses:
        module, number = modules[use.name], numbers[use.name]
        numbers[use.name] += 1
        own = None
        if hasattr(module, "write_infotext"):
            own = ask(module, "write_infotext", (options_of(module, use.options), number))
        found |= _texts(own) if isinstance(own, Mapping) else {key_of(module, number): text_of(module, use.options)}
    return found


def _texts(own: Mapping[Any, Any]) -> dict[str, str]:
    return {as_key(str(key)): str(value).encode("utf-8", "replace").decode() for key, value in own.items()}


def key_of(module: ConditioningModule, number: int) -> str:
    """The key of a use, by its number from 0."""
    return as_key(module.name) + (f" {number + 1}" if number else "")


def text_of(module: ConditioningModule, options: Mapping[str, Any]) -> str:
    """The value of a use: its options that are not as by default."""
    values: dict[str, Any] = plain(options_of(module, options))
    changed = [field for field in _fields(module.options) if values[field.box.name] != field.box.default]
    return ", ".join(f"{field.key}: {quote(field.text(values[field.box.name]))}" for field in changed) or ENABLED


@dataclass(frozen=True)
class _Field:
    """A field of an options record and its key in the text."""

    key: str
    box: Box
    kind: Any

    @property
    def is_json(self) -> bool:
        """Whether the text of a value is JSON: of all but flags, numbers, texts and closed choices of texts."""
        if get_origin(self.kind) is Literal:
            return not all(isinstance(one, str) for one in get_args(self.kind))
        is_enum = isinstance(self.kind, type) and issubclass(self.kind, StrEnum)
        return not is_enum and self.kind not in (bool, int, float, str)

    def text(self, value: Any) -> str:
        """A plain value as text."""
        return json.dumps(value, ensure_ascii=False) if self.is_json else str(value)

    def value(self, text: str) -> Any:
        """The plain value of a text.  Raises ValueError."""
        if self.is_json:
            return json.loads(text)
        if self.kind is bool:
            if text not in _FLAGS:
                raise ValueError(f"{text} is neither True nor False")
            return _FLAGS[text]
        return self.kind(text) if self.kind in (int, float) else text


def _fields(options: type) -> list[_Field]:
    """The fields; of several that would have one key the later ones have their number behind it."""
    kinds, found = get_type_hints(options), dict[str, _Field]()
    for box in all_boxes(options):
        key, number = as_key(box.label), 1
        while (numbered := key if number == 1 else f"{key} {number}") in found:
            number += 1
        found[numbered] = _Field(numbered, box, kinds[box.name])
    return list(found.values())


def read(fields: dict[str, str], modules: Modules, ask: Ask = asked) -> tuple[list[ModuleUse], list[str]]:
    """The uses that a text's ``fields`` tell of, which are taken out of them, and what of those was not understood.

    They are in the order of the text, since modules act in the order of their uses.
    """
    order = {key: place for place, key in enumerate(fields)}
    uses: list[tuple[int, ModuleUse]] = []
    refused: list[str] = []
    for module in modules.values():
        before = set(fields)
        read_one = _read_own if hasattr(module, "read_infotext") else _read_generated
        found, problems = read_one(module, fields, ask)
        taken = sorted(order.get(key, len(order)) for key in before - set(fields))
        uses += zip(_places(taken, len(found), last=len(order)), found, strict=True)
        refused += problems
    return [use for _, use in sorted(uses, key=lambda placed: placed[0])], refused


def _places(taken: Sequence[int], count: int, last: int) -> Sequence[int]:
    """Where so many uses stand whose keys have the places ``taken``: a key each, or all where the first key is."""
    return taken if len(taken) == count else [taken[0] if taken else last] * count


def _read_own(module: ConditioningModule, fields: dict[str, str], ask: Ask) -> tuple[list[ModuleUse], list[str]]:
    """By the module's own function; what it makes of a text and must not is told whole."""
    left = dict(fields)
    answer = ask(module, "read_infotext", (left,))
    taken = {key: value for key, value in fields.items() if key not in left}
    if not isinstance(answer, list | tuple):
        return [], []
    try:
        uses = [_use(module, options) for options in answer[: units_of(module)]]
    except RequestError as error:
        uses, taken_told = [], [*_told(taken), str(error)]
    else:
        taken_told = _told(taken) if len(answer) > units_of(module) else []
    fields.clear()
    fields.update(left)
    return uses, taken_told


def _told(pairs: Mapping[str, str]) -> list[str]:
    return [f"{key}: {value}" for key, value in pairs.items()]


def _use(module: ConditioningModule, options: Any) -> ModuleUse:
    if not isinstance(options, Mapping):
        raise RequestError(f"{module.name} read options from the text that are no named values.")
    return ModuleUse(name=module.name, options=plain(options_of(module, options)))


def _read_generated(module: ConditioningModule, fields: dict[str, str], _: Ask) -> tuple[list[ModuleUse], list[str]]:
    uses: list[ModuleUse] = []
    refused: list[str] = []
    for number in range(units_of(module)):
        key = key_of(module, number)
        key = key + CLASH if key + CLASH in fields else key
        if (text := fields.pop(key, None)) is None:
            continue
        options, problems, known = _options(module, text)
        if not known:
            refused.append(f"{key}: {text}")
            continue
        refused += [f"{key}: {problem}" for problem in problems]
        try:
            uses.append(_use(module, options))
        except RequestError:  # its values fit one by one and not together
            refused.append(f"{key}: {text}")
    return uses, refused


def _options(module: ConditioningModule, text: str) -> tuple[dict[str, Any], list[str], bool]:
    """The options that a generated text tells, what of it was not understood, and whether it is such a text at all."""
    known = {field.key: field for field in _fields(module.options)}
    options: dict[str, Any] = {}
    refused: list[str] = []
    told = pairs_of(text)
    for key, value in told:
        try:
            field = known[key]
            options[field.box.name] = plain(checked_value(field.box, field.kind, field.value(value), module.name))
        except (KeyError, ValueError, OverflowError, RecursionError, RequestError):
            refused.append(f"{key}: {value}")
    return options, refused, bool(told) or text == ENABLED
