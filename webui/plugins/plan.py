"""What an installation or an update would do, found out before anything of it is done; and the difference it makes."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from webui.plugins.dependencies import Package
from webui.plugins.manifest import Manifest
from webui.plugins.sources import Source
from webui.plugins.tree_hash import tree_files
from webui.records import plain

MAX_DIFF = 100_000
"""Characters of a difference that are shown."""
MAX_COMPARED = 200_000
"""Bytes of a file whose lines are compared."""


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """A file that would be there, and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What an update changes: names of files, permissions that come and go (sentences), and the lines, as a diff.

    ``from_hash`` is the tree hash of what it would replace.
    """

    from_hash: str
    from_version: str
    from_commit: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    permissions_added: tuple[str, ...]
    permissions_removed: tuple[str, ...]
    lines: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An installation (``difference`` None) or an update that waits to be confirmed by its id and tree hash.

    ``packages`` would be installed for it, into a folder of its own.  ``notes`` are sentences that people should read.
    """

    id: str
    source: Source
    commit: str
    tree_hash: str
    manifest: Manifest
    files: tuple[PlannedFile, ...]
    packages: tuple[Package, ...] = ()
    difference: Difference | None = None
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(file.size for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        permissions = self.manifest.permissions.sentences()
        return {
            **plain(self),
            "name": self.manifest.name,
            "version": self.manifest.version,
            "bytes": self.bytes,
            "from": self.source.sentence(self.commit),
            "permissions": permissions,
        }


def planned_files(entry: Path) -> tuple[PlannedFile, ...]:
    """The files of a folder (or the one file) with their sizes, by name."""
    return tuple(PlannedFile(name=name, size=path.stat().st_size) for name, path in tree_files(entry))


def compare(
    old: Path, old_manifest: Manifest, new: Path, manifest: Manifest, old_hash: str, old_commit: str
) -> Difference:
    """What changes from one tree to another."""
    before, after = dict(tree_files(old)), dict(tree_files(new))
    changed = tuple(name for name in before if name in after and _digest(before[name]) != _digest(after[name]))
    asked, asks = old_manifest.permissions.sentences(), manifest.permissions.sentences()
    return Difference(
        from_hash=old_hash,
        from_version=old_manifest.version,
        from_commit=old_commit,
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=changed,
        permissions_added=tuple(one for one in asks if one not in asked),
        permissions_removed=tuple(one for one in asked if one not in asks),
        lines=_lines(before, after),
    )


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()


def _lines(before: Mapping[str, Path], after: Mapping[str, Path]) -> str:
    """A unified diff of the text files, cut off after some pages."""
    parts: list[str] = []
    length = 0
    for name in sorted({*before, *after}):
        for line in _diff_of(name, before.get(name), after.get(name)):
            length += len(line) + 1
            if length > MAX_DIFF:
                return "\n".join([*parts, "… and more"])
            parts.append(line)
    return "\n".join(parts)


def _diff_of(name: str, old: Path | None, new: Path | None) -> Iterator[str]:
    was, becomes = _text(old), _text(new)
    if was == becomes:
        return
    if was is None or becomes is None:
        yield f"{name}: no text, or too large to compare"
        return
    yield from difflib.unified_diff(was, becomes, f"{name} (now)", f"{name} (new)", lineterm="")


def _text(path: Path | None) -> list[str] | None:
    """The lines of a file, [] for none; None when it is large or no text."""
    if path is None:
        return []
    if path.stat().st_size > MAX_COMPARED:
        return None
    try:
        return path.read_bytes().decode().splitlines()
    except UnicodeDecodeError:
        return None
