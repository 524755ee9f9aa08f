"""What people are shown of the extensions: those on the disk, those that run, and what the next start will change."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from webui.hooks import PROJECT
from webui.plugins import shelf
from webui.plugins.discovery import BUNDLED, Found, discover
from webui.plugins.manifest import Manifest
from webui.plugins.switches import disabled_names
from webui.plugins.tree_hash import tree_hash
from webui.records import plain


class State(StrEnum):
    """Where an extension stands between this start of the program and the next."""

    ON = "on"
    OFF = "off"
    LEFT_OUT = "left out"
    STARTS = "starts at the next start"
    STOPS = "stops at the next start"
    CHANGES = "changes at the next start"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One extension.  ``source`` is where it came from, ``permissions`` what it says it does, both as people read them.

    ``tree_hash`` is of what is on the disk (empty for an installed package), ``previous`` the version that a roll-back
    goes to, None without one.  ``problems`` are sentences.
    """

    name: str
    version: str
    description: str
    authors: tuple[str, ...]
    licence: str
    source: str
    state: State
    enabled: bool
    bundled: bool
    removable: bool
    updatable: bool
    tree_hash: str
    previous: str | None
    changed_by_hand: bool
    permissions: tuple[str, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values: dict[str, Any] = plain(self)
        return values


def listed(
    folder: Path, state_dir: Path, running: Mapping[str, str] | None = None, problems: Sequence[str] = ()
) -> list[Listed]:
    """The extensions by name: of the folder, of installed packages, and those that run and are not there any more.

    ``running`` are the digests of what this process loaded, by name; None where nothing runs (the command line).
    ``problems`` are sentences, each shown with the extensions it names.
    """
    disabled = disabled_names(state_dir)
    found = discover(folder)
    rows = [_of_folder(folder, one, one.name not in disabled, running, problems) for one in found]
    names = {one.name for one in found}
    for entry in importlib.metadata.entry_points(group=PROJECT):
        if entry.name not in names:
            manifest = _package_manifest(entry)
            source = f"installed package {entry.dist.name if entry.dist else entry.value}"
            rows.append(_row(manifest, entry.name not in disabled, running, problems, source=source))
            names.add(entry.name)
    for name in running or {}:
        if name not in names:
            rows.append(_row(Manifest(name=name), False, running, problems, source="not on the disk any more"))
    return sorted(rows, key=lambda row: row.name.casefold())


def _of_folder(
    folder: Path, one: Found, enabled: bool, running: Mapping[str, str] | None, problems: Sequence[str]
) -> Listed:
    record = shelf.record_of(folder, one.name)
    bundled = one.name in BUNDLED
    before = shelf.previous(folder, one.name)
    try:
        digest, problem = tree_hash(one.path), one.problem
    except OSError as error:
        digest, problem = "", one.problem or f"{error.filename} cannot be read: {error.strerror}."
    source = "put there by hand"
    if record is not None:
        source = record.source.sentence(record.commit)
    if bundled:
        source = "comes with the program"
    return _row(
        one.manifest,
        enabled,
        running,
        [*problems, *([f"The extension {one.name} was left out: {problem}"] if problem else [])],
        source=source,
        bundled=bundled,
        removable=not bundled,
        updatable=record is not None and record.source.can_be_asked_again and not bundled,
        digest=digest,
        previous=None if before is None else (before.record.version if before.record else ""),
        changed_by_hand=record is not None and record.tree_hash != digest,
        broken=bool(problem),
    )


def _row(
    manifest: Manifest,
    enabled: bool,
    running: Mapping[str, str] | None,
    problems: Sequence[str],
    *,
    source: str,
    bundled: bool = False,
    removable: bool = False,
    updatable: bool = False,
    digest: str = "",
    previous: str | None = None,
    changed_by_hand: bool = False,
    broken: bool = False,
) -> Listed:
    mine = tuple(dict.fromkeys(one for one in problems if _names(one, manifest.name)))
    return Listed(
        name=manifest.name,
        version=manifest.version,
        description=manifest.description,
        authors=manifest.authors,
        licence=manifest.licence,
        source=source,
        state=_state(manifest.name, enabled, running, digest, broken, bool(mine)),
        enabled=enabled,
        bundled=bundled,
        removable=removable,
        updatable=updatable,
        tree_hash=digest,
        previous=previous,
        changed_by_hand=changed_by_hand,
        permissions=tuple(manifest.permissions.sentences()),
        problems=mine,
    )


def _state(
    name: str, enabled: bool, running: Mapping[str, str] | None, digest: str, broken: bool, has_problem: bool
) -> State:
    if running is None:
        return State.OFF if not enabled else State.LEFT_OUT if broken else State.ON
    if name in running:
        if not enabled or broken:
            return State.STOPS
        return State.CHANGES if digest and digest != running[name] else State.ON
    if not enabled:
        return State.OFF
    return State.LEFT_OUT if broken or has_problem else State.STARTS


def _names(sentence: str, name: str) -> bool:
    """Whether a sentence speaks of an extension; they all say "extension NAME"."""
    _, found, after = sentence.partition(f"extension {name}")
    return bool(found) and not (after[:1].isalnum() or after.startswith(("_", "-")))


def _package_manifest(entry: importlib.metadata.EntryPoint) -> Manifest:
    if entry.dist is None:
        return Manifest(name=entry.name)
    told = entry.dist.metadata

    def line(name: str) -> str:
        return " ".join(str(told[name] or "").split())[:500] if name in told else ""

    author = line("Author") or line("Author-email")
    return Manifest(
        name=entry.name,
        version=entry.dist.version,
        description=line("Summary"),
        authors=(author,) if author else (),
        licence=line("License-Expression") or line("License"),
    )
