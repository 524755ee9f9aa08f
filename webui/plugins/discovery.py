"""Which extensions lie in the extensions folder, what each says of itself, and in which order they are loaded.

Nothing of an extension is imported here.  Called by the plugin manager at each start and by the installer's list.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from webui.errors import ExtensionError
from webui.plugins.manifest import Manifest, nameless_manifest, read_manifest

BUNDLED = ("controlnet", "regional", "guidance", "xray", "scripts", "example_cosine")
"""Extensions that come with the program: they can be disabled, and are not uninstalled or replaced."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """An extension on the disk.  ``path`` is its folder or file, ``source`` the file that is imported.

    ``problem`` is why it cannot be loaded (a sentence without its name); empty when it can.
    """

    path: Path
    source: Path
    manifest: Manifest
    problem: str = ""

    @property
    def name(self) -> str:
        """What it is called everywhere: the manifest's name, else that of the folder or file."""
        return self.manifest.name


def discover(folder: Path) -> list[Found]:
    """The extensions in the folder, by the name of their folder or file.  Of two of one name the second has a problem.

    An extension is a ``.py`` file or a folder with an ``__init__.py``; names that begin with ``.`` or ``_`` are left
    alone.
    """
    found: dict[str, Found] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        one = _look(path)
        if one is None:
            continue
        first = found.get(one.name)
        if first is not None:
            one = replace(one, problem=f"it has the name of the one in {first.path.name}; rename one of them.")
        found[one.name if first is None else f"{one.name} ({path.name})"] = one
    return list(found.values())


def _look(path: Path) -> Found | None:
    """The extension at a path; None when there is none."""
    if path.name.startswith((".", "_")):
        return None
    try:
        source = path / "__init__.py" if path.is_dir() else path
        if source.suffix != ".py" or not source.is_file():
            return None
        return Found(path=path, source=source, manifest=read_manifest(path))
    except OSError as error:
        problem = f"{path.name} cannot be read: {error.strerror}."
    except ExtensionError as error:
        problem = str(error)
    return Found(path=path, source=source, manifest=nameless_manifest(path), problem=problem)


def in_load_order(found: Sequence[Found]) -> tuple[list[Found], list[str]]:
    """The extensions so that each comes after those it names in ``after`` and before those in ``before``.

    Where nothing is asked for they go by name.  Names of extensions that are not there do not matter.  Extensions that
    ask in a circle are named in a sentence, and the first of them by name begins.
    """
    waiting = {one.path.name: one for one in sorted(found, key=lambda one: (one.name, one.path.name))}
    earlier = _earlier(waiting)
    ordered: list[Found] = []
    sentences: list[str] = []
    ready = [(one.name, key) for key, one in waiting.items() if not earlier[key]]
    heapq.heapify(ready)
    while waiting:
        if not ready:
            circle = _circle(earlier)
            sentences.append(_in_circle([waiting[key].name for key in circle]))
            first = min(circle, key=lambda key: waiting[key].name)
            earlier[first] = set()
            ready = [(waiting[first].name, first)]
        _, key = heapq.heappop(ready)
        ordered.append(waiting.pop(key))
        del earlier[key]
        for other, needed in earlier.items():
            if key in needed:
                needed.remove(key)
                if not needed:
                    heapq.heappush(ready, (waiting[other].name, other))
    return ordered, sentences


def _earlier(found: Mapping[str, Found]) -> dict[str, set[str]]:
    """For each the ones that must come before it."""
    named: dict[str, set[str]] = {}
    for key, one in found.items():
        named.setdefault(one.name, set()).add(key)
    earlier: dict[str, set[str]] = {key: set() for key in found}
    for key, one in found.items():
        for name in one.manifest.after:
            earlier[key] |= named.get(name, set())
        for name in one.manifest.before:
            for other in named.get(name, set()):
                earlier[other].add(key)
    return earlier


def _circle(earlier: Mapping[str, set[str]]) -> list[str]:
    """Some extensions, each of which must come after the next, the last after the first; there must be such."""
    path: list[str] = [min(earlier)]
    while True:
        following = min(earlier[path[-1]])
        if following in path:
            return path[path.index(following) :]
        path.append(following)


def _in_circle(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"The extension {names[0]} asks to be loaded before or after itself; that was ignored."
    first = names.index(min(names))
    circle = [*names[first:], *names[:first], names[first]]
    return (
        f"The extensions ask to be loaded in a circle, {' after '.join(circle)}; "
        f"{circle[0]} was loaded first. Change before or after in one of their files."
    )
