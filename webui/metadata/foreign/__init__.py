"""Other programs' texts -> the prompts and pairs that AUTOMATIC1111 would have written.

A drop-in folder: each file knows one program and has ``read(texts) -> Told | None``, where ``texts`` are a file's texts
by keyword; None means that another program made it.  Files come from strangers: values of any kind may stand anywhere,
and a text that is no JSON is one that is not understood.
"""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from webui.metadata.infotext import Infotext, parse

Read = Callable[[Mapping[str, str]], "Told | None"]
LONGEST = 8 * 1024 * 1024
"""Characters of a text that are looked at."""


@dataclass
class Told:
    """What a program told, in AUTOMATIC1111's words; ``unmapped`` are the items that have no such word.

    ``program`` is empty where the pairs themselves say it.
    """

    program: str
    prompt: str = ""
    negative_prompt: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    unmapped: list[str] = field(default_factory=list)

    @property
    def infotext(self) -> Infotext:
        """The prompts and pairs."""
        return Infotext(self.prompt, self.negative_prompt, self.fields)

    def put(self, key: str, value: Any) -> None:
        """Give a key its value, unless there is none."""
        if (text := shown(value)) is not None:
            self.fields[key] = text

    def leave(self, key: str, value: Any) -> None:
        """List an item that has no word here."""
        if (text := shown(value)) is not None:
            self.unmapped.append(f"{key}: {text[:200]}")

    def leave_others(self, items: Mapping[str, Any], known: frozenset[str]) -> None:
        """List all items but those of these keys."""
        for key, value in items.items():
            if key not in known:
                self.leave(str(key)[:60], value)


def shown(value: Any) -> str | None:
    """A plain value as text, None for nothing: null, an empty text, list or object."""
    if value is None or value == "" or value == [] or value == {}:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def words(value: Any) -> str:
    """A text, empty for any other value."""
    return value if isinstance(value, str) else ""


def number(value: Any) -> float | None:
    """A finite number, also one that is written as a text; None for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def record(value: Any) -> dict[str, Any]:
    """A JSON object, empty for any other value."""
    return value if isinstance(value, dict) else {}


def parsed(text: str | None) -> Any:
    """The JSON value of a text, None for any other text; it may hold NaN, as some programs write it."""
    if not text or len(text) > LONGEST:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def stem(path: Any) -> str:
    """A model file's name without folders and suffix."""
    name = words(path).replace("\\", "/").rpartition("/")[2]
    for suffix in (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".sft"):
        name = name.removesuffix(suffix)
    return name


@cache
def readers() -> tuple[Read, ...]:
    """The function of every file of this folder that has one."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(module.read for module in modules if hasattr(module, "read"))


def tell(texts: Mapping[str, str]) -> Told | None:
    """What a file's texts tell, whoever wrote them; None when they tell nothing.

    ``parameters`` that are AUTOMATIC1111's come first: other programs write them for its readers.
    """
    text = texts.get("parameters", "")
    infotext = None if isinstance(parsed(text), dict) else parse(text)
    if infotext is None or not infotext.fields:
        told = read_foreign(texts)
        if told is not None or not text:
            return told
    found = infotext or parse(text)
    return Told("", found.prompt, found.negative_prompt, dict(found.fields))


def read_foreign(texts: Mapping[str, str]) -> Told | None:
    """What another program's texts tell; None when no program is recognised in them."""
    return next((told for read in readers() if (told := read(texts)) is not None), None)
