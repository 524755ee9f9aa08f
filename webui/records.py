"""Frozen records <-> plain JSON values, and the checks that a record makes when it is built.

Standard library only; used by ``request`` and by whoever keeps records in files.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import Any

from webui.errors import RequestError

MAX_PROMPT = 100_000
MAX_DEPTH = 16
"""How deeply a conditioning module's options may be nested."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse what is no number from ``low`` to ``high``.  Raises RequestError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"{name} is {shown(value)}; it must be a number from {low:g} to {high:g}.")
    if not low <= value <= high:  # also when it is not a number (NaN)
        raise RequestError(f"{name} is {shown(value)}; it must be from {low:g} to {high:g}.")


def check_whole(name: str, value: int, low: int, high: int) -> None:
    """Refuse what is no whole number from ``low`` to ``high``.  Raises RequestError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} is {shown(value)}; it must be a whole number from {low} to {high}.")
    if not low <= value <= high:
        raise RequestError(f"{name} is {shown(value)}; it must be from {low} to {high}.")


def check_flag(name: str, value: bool) -> None:
    """Refuse what is neither True nor False.  Raises RequestError."""
    if not isinstance(value, bool):
        raise RequestError(f"{name} is {shown(value)}; it must be true or false.")


def check_choice(name: str, value: StrEnum, kind: type[StrEnum]) -> None:
    """Refuse what is no member of ``kind``.  Raises RequestError."""
    if not isinstance(value, kind):
        allowed = ", ".join(f'"{member.value}"' for member in kind)
        raise RequestError(f"{name} is {shown(value)}; it must be one of {allowed}.")


def check_plain(name: str, value: Any, depth: int = MAX_DEPTH) -> None:
    """Refuse what JSON cannot keep, and nesting that no program needs."""
    if depth == 0:
        raise RequestError(f"{name} is nested more than {MAX_DEPTH} levels deep.")
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        for key, item in value.items():
            check_text(name, key)
            check_plain(name, item, depth - 1)
    elif isinstance(value, list | tuple):
        for item in value:
            check_plain(name, item, depth - 1)
    elif isinstance(value, str):
        check_text(name, value)
    elif not (value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))):
        raise RequestError(f"{name} holds {shown(value)}, which is no plain JSON value.")


def shown(value: Any) -> str:
    """A value that was refused, short enough for a sentence."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    is_number = isinstance(value, float | int) and not isinstance(value, bool)
    text = f"{value:.10g}" if is_number else repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def check_text(name: str, value: str) -> None:
    """Refuse what is no text, is too long, or cannot be stored as text.  Raises RequestError."""
    if not isinstance(value, str):
        raise RequestError(f"{name} is {shown(value)}; it must be text.")
    if len(value) > MAX_PROMPT:
        raise RequestError(f"{name} has {len(value)} characters; at most {MAX_PROMPT} are accepted.")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise RequestError(f"{name} holds characters that cannot be stored as text (NUL or half of a pair).")


def check_digest(name: str, value: str) -> None:
    """Refuse what is no SHA-256 in hexadecimal digits.  Raises RequestError."""
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise RequestError(f"{name} must be named by the SHA-256 of a stored picture (64 hexadecimal digits).")


def plain(value: Any) -> Any:
    """A record, or a part of one, as plain JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value


def build(kind: Any, data: Any, where: str) -> Any:
    """``data`` as an instance of ``kind``, which is one of the annotations used in this module."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if data is None and type(None) in arguments:
            return None
        return build(next(a for a in arguments if a is not type(None)), data, where)
    if origin is tuple:
        if not isinstance(data, list | tuple):
            raise RequestError(f"{where} must be a list.")
        return tuple(build(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(data))
    if is_dataclass(kind) and isinstance(kind, type):
        return _build_record(kind, data, where)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if data not in [member.value for member in kind]:
            allowed = ", ".join(f'"{member.value}"' for member in kind)
            raise RequestError(f"{where} is {shown(data)}; it must be one of {allowed}.")
        return kind(data)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, Mapping):
            raise RequestError(f"{where} must be an object.")
        return dict(data)
    if kind is float and isinstance(data, int) and not isinstance(data, bool) and abs(data) < 2**53:
        return float(data)
    return data


def _build_record(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise RequestError(f"{where} must be an object with named fields.")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    unknown = [name for name in data if name not in known]
    if unknown:
        names = ", ".join(map(shown, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise RequestError(f"{where} has unknown fields {names}; known are {', '.join(known)}.")
    missing = [
        name
        for name, f in known.items()
        if name not in data and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RequestError(f"{where} lacks {', '.join(missing)}.")
    return kind(**{name: build(hints[name], value, f"{where}.{name}") for name, value in data.items()})
