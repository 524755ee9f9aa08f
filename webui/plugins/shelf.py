"""What is kept about installed extensions: where each came from, the version before it, and what is in the trash.

    extensions/<name>                       an extension in use (a folder or a .py file)
    extensions/.webui/records/<name>.json   where it came from
    extensions/.webui/packages/<folder>     packages that were installed for it
    extensions/.webui/previous/<name>/<id>  the version before: tree/<name>, record.json
    extensions/.webui/trash/<name>~<id>     what was uninstalled: tree/<name>, record.json, previous/

Everything is read again each time: people move folders by hand as well.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from webui.errors import NotFoundError, RequestError
from webui.plugins.moves import HIDDEN, Move
from webui.plugins.sources import Source
from webui.records import build, plain

RECORD = "record.json"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known about an installed tree.  ``installed`` is a time in UTC (ISO 8601), ``packages`` a folder."""

    source: Source
    version: str
    tree_hash: str
    commit: str = ""
    packages: str = ""
    installed: str = ""

    def to_bytes(self) -> bytes:
        """The content of its file."""
        return json.dumps(plain(self), indent=2).encode()


@dataclass(frozen=True)
class Kept:
    """A tree that is not in use: ``id`` names it, ``entry`` is its folder or file, ``record`` where it came from."""

    id: str
    place: str
    entry: Path
    record: Record | None

    @property
    def name(self) -> str:
        """The extension's name, of a tree in the trash."""
        return self.id.rpartition("~")[0]

    @property
    def since(self) -> str:
        """When it was put there, in UTC (ISO 8601); empty when its folder was renamed by hand."""
        with suppress(ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(int(self.id.rpartition("~")[2]) / 1e9, UTC).isoformat(timespec="seconds")
        return ""


def read_record(file: Path) -> Record | None:
    """The record in a file; None when there is none that can be read."""
    try:
        record: Record = build(Record, json.loads(file.read_bytes()), "the record")
    except (OSError, ValueError, RecursionError, RequestError, TypeError):
        return None
    return record


def record_name(name: str) -> str:
    """Where the record of the extension ``name`` is, relative to the extensions folder."""
    return f"{HIDDEN}/records/{name}.json"


def record_of(folder: Path, name: str) -> Record | None:
    """Where an extension in use came from; None when it was put there by hand."""
    return read_record(folder / record_name(name))


def packages_folder(folder: Path, name: str) -> Path | None:
    """The folder with packages that were installed for an extension; None when there is none."""
    record = record_of(folder, name)
    if record is None or not record.packages or Path(record.packages).name != record.packages:
        return None
    return folder / HIDDEN / "packages" / record.packages


def offer_packages(folder: Path, name: str) -> None:
    """Let an extension import what was installed for it: behind everything that the program itself imports."""
    packages = packages_folder(folder, name)
    if packages is not None and packages.is_dir() and str(packages) not in sys.path:
        sys.path.append(str(packages))


def previous(folder: Path, name: str) -> Kept | None:
    """The version before the one in use; None when there is none."""
    kept = list(_kept(folder, f"{HIDDEN}/previous/{name}"))
    return kept[-1] if kept else None


def trash(folder: Path) -> list[Kept]:
    """What was uninstalled, the newest first."""
    return sorted(_kept(folder, f"{HIDDEN}/trash"), key=lambda one: one.id.rpartition("~")[2], reverse=True)


def in_trash(folder: Path, trash_id: str) -> Kept:
    """One of the trash.  Raises NotFoundError."""
    for one in trash(folder):
        if one.id == trash_id:
            return one
    raise NotFoundError("There is no such extension in the trash; it may have been restored already.")


def _kept(folder: Path, place: str) -> Iterator[Kept]:
    below = folder / place
    for path in sorted(below.iterdir()) if below.is_dir() else []:
        entries = list((path / "tree").iterdir()) if (path / "tree").is_dir() else []
        if len(entries) == 1:
            yield Kept(path.name, f"{place}/{path.name}", entries[0], read_record(path / RECORD))


def new_id() -> str:
    """An id that sorts after the earlier ones: nanoseconds since 1970."""
    return f"{time.time_ns():020d}"


def putting_away(name: str, entry: Path, place: str) -> list[Move]:
    """The moves that take an extension out of use, into ``place``."""
    return [Move(entry.name, f"{place}/tree/{entry.name}"), Move(record_name(name), f"{place}/{RECORD}")]


def taking_back(name: str, kept: Kept) -> list[Move]:
    """The moves that take a kept tree into use; nothing of the name may be in use."""
    return [
        Move(f"{kept.place}/tree/{kept.entry.name}", kept.entry.name),
        Move(f"{kept.place}/{RECORD}", record_name(name)),
    ]


def sweep(folder: Path) -> None:
    """Remove what nothing refers to any more: older versions than the one before, packages without an extension."""
    hidden = folder / HIDDEN
    for place in [hidden / "trash", *_folders(hidden / "previous"), *hidden.glob("trash/*/previous")]:
        for path in _folders(place):
            is_kept = any((path / "tree").iterdir()) if (path / "tree").is_dir() else False
            if not is_kept:
                shutil.rmtree(path, ignore_errors=True)
    for place in _folders(hidden / "previous"):
        for path in _folders(place)[:-1]:
            shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            place.rmdir()  # goes only when it is empty
    records = [*hidden.glob("records/*.json"), *hidden.glob(f"**/{RECORD}")]
    used = {record.packages for file in records if (record := read_record(file)) is not None}
    for path in _folders(hidden / "packages"):
        if path.name not in used:
            shutil.rmtree(path, ignore_errors=True)


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
