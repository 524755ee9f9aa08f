"""The folder of wildcards: text files whose lines can take the place of ``__name__`` in a prompt.

A file's name is its path below the folder without ``.txt``, with ``/`` between folders: ``animals/cats``.  ``*`` and
``?`` in a name stand for any letters and mean the lines of all files that fit, in the files' order.  Empty lines and
those that begin with ``#`` are no choices; ``2::red`` is chosen twice as often as ``red``.  Layout of AUTOMATIC1111's
extension sd-dynamic-prompts (``docs/SYNTAX.md``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

SUFFIX = ".txt"
MAX_FILE = 32 * 1024 * 1024
"""A file of more bytes is not read."""


@dataclass(frozen=True)
class Wildcards:
    """The lines of wildcard files by name; ``folders`` are looked at in order, once, when the first name is asked for.

    ``given`` are lines by name that are in no file, for extensions and tests; they come before the files'.
    """

    folders: tuple[Path, ...] = ()
    given: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _read: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def paths(self) -> dict[str, Path]:
        """The files by name, in order of their names; of two of a name that of the first folder.

        Links that lead out of their folder are left out.
        """
        found: dict[str, Path] = {}
        for folder in self.folders:
            for path in _files(folder):
                found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
        return dict(sorted(found.items()))

    def lines(self, name: str) -> tuple[str, ...]:
        """The choices that a name means, as they are written; none for a name that means nothing."""
        if name not in self._read:
            self._read[name] = tuple(self._lines(name))
        return self._read[name]

    def _lines(self, name: str) -> Iterator[str]:
        if name in self.given:
            yield from self.given[name]
            return
        is_pattern = "*" in name or "?" in name
        names = [known for known in self.paths if fnmatchcase(known, name)] if is_pattern else [name]
        for known in names:
            if path := self.paths.get(known):
                yield from _choices(path)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    root = folder.resolve()
    return [
        path
        for path in sorted(folder.rglob(f"*{SUFFIX}"))
        if path.resolve().is_relative_to(root) and path.is_file() and path.stat().st_size <= MAX_FILE
    ]


def _choices(path: Path) -> Iterable[str]:
    text = path.read_bytes().decode("utf-8-sig", "replace").replace("\0", "")
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
