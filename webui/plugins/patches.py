"""Notices when an extension replaces parts of the program while it is loaded, and puts them back.

What a module of ours binds to a name, and a class of ours to an attribute, is compared before and after.  Names that
are new are none of its business: importing a module of a package adds one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

PROGRAM = "webui"
PASSED_OVER = frozenset({"__dict__", "__weakref__", "__doc__", "__annotations__", "__spec__", "__loader__", "__path__"})

Bindings = dict[tuple[int, str], tuple[Any, str, Any]]
"""(owner's id, name) -> owner, what it is called, and what the name is bound to."""


def bindings() -> Bindings:
    """What the program's modules and classes bind to their names now."""
    found: Bindings = {}
    for owner, called in _owners():
        for name, value in list(vars(owner).items()):
            if name not in PASSED_OVER and not isinstance(value, ModuleType):
                found[id(owner), name] = owner, called, value
    return found


def put_back(before: Bindings) -> list[str]:
    """Undo what was replaced or deleted since; returns the full names."""
    missing = object()
    replaced = []
    for (_, name), (owner, called, value) in before.items():
        now = vars(owner).get(name, missing)
        if now is not value and not isinstance(now, ModuleType):  # a package's module may have a function's name
            replaced.append(f"{called}.{name}")
            setattr(owner, name, value)
    return replaced


def _owners() -> Iterator[tuple[Any, str]]:
    for called, module in list(sys.modules.items()):
        if module is None or not (called == PROGRAM or called.startswith(f"{PROGRAM}.")):
            continue
        yield module, called
        for name, value in list(vars(module).items()):
            if isinstance(value, type) and value.__module__ == called:
                yield value, f"{called}.{name}"
