"""What a part of the program says about its options: the boxes on the page, and everything else that is made of them.

A conditioning module or a script has one frozen record (a dataclass) of options.  From it alone come the boxes on the
page, the check of what was asked for (:func:`checked`), the JSON schema (:func:`schema`), the flags of the command line
and the pairs of a picture's text.  Standard library only.

    @dataclass(frozen=True, kw_only=True)
    class Options:
        image: str = option("", "Control picture", kind=Kind.PICTURE)
        model: str = option("", "Model", kind=Kind.MODEL, of="controlnet")
        weight: float = option(1.0, "Weight", low=0, high=2, step=0.05)
        mode: str = option("Balanced", "Control mode", choices=("Balanced", "Prompt", "Control"))
        start: float = option(0.0, "Starting step", low=0, high=1, step=0.01)
        end: float = option(1.0, "Ending step", low=0, high=1, step=0.01, beside=True)
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from webui.errors import RequestError, unknown_name
from webui.records import build, check_digest, check_flag, check_plain, check_text, plain, shown

Choices = Callable[[bool], Sequence[Any]] | Sequence[Any]


class Kind(StrEnum):
    """What an option holds, where its type does not tell; all but PLAIN are texts, and empty means none.

    PICTURE, MASK and PAINT hold the SHA-256 of a stored picture; a client may send the picture itself, the command line
    a path.  PAINT is painted on the page, in the colours of the module's ``palette``.  MODEL holds the name of a model
    file, PREPROCESSOR that of a registered preprocessor.
    """

    PLAIN = "plain"
    PICTURE = "picture"
    MASK = "mask"
    PAINT = "paint"
    MODEL = "model"
    PREPROCESSOR = "preprocessor"


@dataclass(frozen=True, kw_only=True)
class Box:
    """How the page shows a field of an options record; ``name`` and ``default`` are those of the field.

    The default's type says what it holds: a flag, a whole number, a number or a text; ``kind`` says it of some texts.
    ``of`` is, for a MODEL, the kind of files (``webui.checkpoints.library.FOLDERS``), for a MASK the field with the
    picture that it is drawn on, for a PREPROCESSOR the field with the picture that it is for.  ``choices``, which may
    depend on whether there is a start image, make it a list, as ``entries`` does, the name of a list of the page that a
    folder fills ("img2img_upscaler"); ``low`` and ``high`` a slider, more than one of ``lines`` a large box that a file
    can fill.  ``hint`` stands in an empty text or below the label.  One that is ``beside`` shares the row of the box
    before it; one with ``when`` (a field, a value) is there only while that field has that value.  Without ``shown``
    only API and command line set it.
    """

    name: str = ""
    default: Any = None
    label: str = ""
    kind: Kind = Kind.PLAIN
    of: str = ""
    hint: str = ""
    choices: Choices | None = None
    entries: str = ""
    low: float | None = None
    high: float | None = None
    step: float | None = None
    lines: int = 1
    beside: bool = False
    when: tuple[str, Any] | None = None
    shown: bool = True

    def choices_for(self, img2img: bool) -> list[Any] | None:
        """The closed list of values, None where there is none."""
        given = self.choices(img2img) if callable(self.choices) else self.choices
        return None if given is None else list(given)

    @property
    def is_picture(self) -> bool:
        """Whether it holds the SHA-256 of a stored picture."""
        return self.kind in (Kind.PICTURE, Kind.MASK, Kind.PAINT)


def option(default: Any, label: str, **more: Any) -> Any:
    """A field of an options record with its words; ``more`` as in :class:`Box`."""
    return field(default=default, metadata={Box: Box(label=label, **more)})


def boxes(options: type) -> list[Box]:
    """What the page shows of an options record, in its order: fields whose default is a plain value.

    A field that was not made with :func:`option` is labelled by its name.
    """
    return [box for box in all_boxes(options) if box.shown and isinstance(box.default, bool | int | float | str)]


def all_boxes(options: type) -> list[Box]:
    """A box for every field, also for those that the page does not show; without a default it is ``MISSING``."""
    hints = typing.get_type_hints(options)
    return [_box(one, hints[one.name]) for one in fields(options) if one.init]


def _box(one: Field[Any], kind: Any) -> Box:
    box: Box = one.metadata.get(Box, Box())
    default = one.default if one.default_factory is MISSING else plain(one.default_factory())
    label = box.label or one.name.replace("_", " ").capitalize()
    choices = _closed(kind) if box.choices is None else box.choices
    return replace(box, name=one.name, default=plain(default), label=label, choices=choices)


def _closed(kind: Any) -> Sequence[Any] | None:
    """The values of a type that lists them."""
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return [member.value for member in kind]
    return None


def problem(options: Any, model_kinds: Sequence[str]) -> str | None:
    """What is wrong with an options record as it is declared, None when nothing is."""
    if not (isinstance(options, type) and is_dataclass(options)):
        return "its options are no dataclass"
    try:
        found = all_boxes(options)
    except Exception as error:
        return f"its options cannot be read ({type(error).__name__}: {error})"
    names = {box.name for box in found}
    for box in found:
        if box.kind is Kind.MODEL and box.of not in model_kinds:
            return f'its option {box.name} names the kind of models "{box.of}"; known are {", ".join(model_kinds)}'
        if box.kind in (Kind.MASK, Kind.PREPROCESSOR) and box.of and box.of not in names:
            return f'its option {box.name} belongs to "{box.of}", which it does not have'
        if box.when is not None and box.when[0] not in names:
            return f'its option {box.name} is there for a value of "{box.when[0]}", which it does not have'
    return None


def checked(options: type, given: Mapping[str, Any], owner: str) -> Any:
    """The record with these values, by field name; what is left out takes its default.

    Raises RequestError in one sentence, which names ``owner``, for an unknown option, a missing one, and a value of
    another type, out of range or not among the choices.  Pictures must be named by their SHA-256 (or empty).
    """
    found = {box.name: box for box in all_boxes(options)}
    hints = typing.get_type_hints(options)
    for name in given:
        if name not in found:
            raise unknown_name(f"option of {owner}", name, found)
    missing = [name for name, box in found.items() if box.default is MISSING and name not in given]
    if missing:
        raise RequestError(f"{owner} lacks {', '.join(missing)}.")
    values = {name: checked_value(found[name], hints[name], value, owner) for name, value in given.items()}
    try:
        return options(**values)
    except RequestError:
        raise
    except (TypeError, ValueError) as error:
        raise RequestError(f"The options of {owner} do not fit: {error}.") from error


def checked_value(box: Box, kind: Any, value: Any, owner: str) -> Any:
    """``value`` for the field of a box, whose annotation is ``kind``.  Raises RequestError."""
    said = "" if box.label.casefold() == box.name.replace("_", " ") else f" ({box.name})"
    what = f"{owner}: {box.label}{said}"
    optional = [one for one in typing.get_args(kind) if one is not type(None)]
    if typing.get_origin(kind) in (types.UnionType, typing.Union) and len(optional) == 1:
        if value is None:
            return None
        kind = optional[0]
    if kind is bool:
        check_flag(what, value)
    elif kind in (int, float):
        value = _number(what, box, kind, value)
    elif kind is str:
        check_text(what, value)
        if box.is_picture and value:
            check_digest(what, value)
    elif typing.get_origin(kind) is not Literal:
        check_plain(what, value)
        value = build(kind, value, what)
    _check_choice(what, box, value)
    return value


def _number(what: str, box: Box, kind: type, value: Any) -> Any:
    whole = kind is int
    least, most = (-math.inf if box.low is None else box.low), (math.inf if box.high is None else box.high)
    limits = "" if box.low is None and box.high is None else f" {_limits(box)}"
    fits = not isinstance(value, bool) and isinstance(value, int if whole else int | float) and least <= value <= most
    if not fits or not abs(value) < 1e300:  # and what is no number (NaN)
        is_whole = isinstance(value, float) and value.is_integer()
        found = "empty" if value is None else repr(value) if is_whole else shown(value)
        raise RequestError(f"{what} is {found}; it must be a {'whole ' if whole else ''}number{limits}.")
    return value if whole else float(value)


def _limits(box: Box) -> str:
    if box.low is None:
        return f"up to {box.high:g}"
    return f"from {box.low:g} on" if box.high is None else f"from {box.low:g} to {box.high:g}"


def _check_choice(what: str, box: Box, value: Any) -> None:
    allowed = [*(box.choices_for(False) or ()), *(box.choices_for(True) or ())]
    if box.choices is not None and value not in allowed:
        known = ", ".join(f'"{one}"' if isinstance(one, str) else str(one) for one in dict.fromkeys(allowed))
        raise RequestError(f"{what} is {shown(value)}; it must be one of {known}.")


def with_pictures(options: type, given: Mapping[str, Any], keep: Callable[[str], str]) -> dict[str, Any]:
    """``given`` with the pictures that stand in it themselves stored: ``keep`` takes the text and answers the SHA-256.

    A SHA-256 and an empty text stay as they are; so does what is no text, which :func:`checked` refuses.
    """
    pictures = {box.name for box in all_boxes(options) if box.is_picture}
    return {
        name: keep(value) if name in pictures and isinstance(value, str) and value and not _is_digest(value) else value
        for name, value in given.items()
    }


def _is_digest(value: str) -> bool:
    try:
        check_digest("", value)
    except RequestError:
        return False
    return True


def schema(options: type, listed: Callable[[Box], Sequence[str] | None] = lambda box: None) -> dict[str, Any]:
    """The JSON schema of an options record.

    ``listed`` gives what a box of models or preprocessors can hold at the moment.  ``x-kind`` is the :class:`Kind` of a
    text that is not plain, ``x-of`` what ``of`` says of it.
    """
    hints = typing.get_type_hints(options)
    found = all_boxes(options)
    properties = {box.name: _property(box, hints[box.name], listed(box)) for box in found}
    table: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required := [box.name for box in found if box.default is MISSING]:
        table["required"] = required
    return table


_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def _property(box: Box, kind: Any, listed: Sequence[str] | None) -> dict[str, Any]:
    told: dict[str, Any] = {"title": box.label}
    if kind in _JSON_TYPES:
        told["type"] = _JSON_TYPES[kind]
    if box.default is not MISSING:
        told["default"] = box.default
    if box.hint:
        told["description"] = box.hint
    if box.kind is not Kind.PLAIN:
        told |= {"x-kind": box.kind.value} | ({"x-of": box.of} if box.of else {})
    if box.is_picture:
        told.setdefault("description", "The SHA-256 of a stored picture, or the picture itself in base64; empty: none.")
    limits = {"minimum": box.low, "maximum": box.high}
    told |= {name: limit for name, limit in limits.items() if limit is not None}
    choices = [*(box.choices_for(False) or ()), *(box.choices_for(True) or ()), *(listed or ())]
    if choices:
        told["enum"] = list(dict.fromkeys(choices))
    return told
