"""What a person noted about a model, and the picture that shows it: files beside the model with its name.

``name.json`` holds a table with AUTOMATIC1111's keys (``modules/ui_extra_networks_user_metadata.py``); others that
stand there are kept.  The picture is ``name.png`` or ``name.preview.png``, or another of the usual forms
(``modules/ui_extra_networks.py``).
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from webui.errors import RequestError

KEYS = {
    "description": "description",
    "sd_version": "sd version",
    "activation_text": "activation text",
    "preferred_weight": "preferred weight",
    "negative_text": "negative text",
    "notes": "notes",
    "vae": "vae",
}
"""Our field for each key of the file."""
MAX_BYTES = 1024 * 1024
"""Largest file of notes that is read or written."""
PICTURE_SUFFIXES = ("png", "jpg", "jpeg", "webp")
"""Forms of previews, the preferred first."""
MAX_WEIGHT = 100.0


@dataclass(frozen=True, kw_only=True)
class Notes:
    """A person's notes on a model; empty where nothing is noted.

    ``preferred_weight`` 0 leaves the weight to the page; ``vae`` is the VAE file to use with a checkpoint.
    """

    description: str = ""
    sd_version: str = ""
    activation_text: str = ""
    preferred_weight: float = 0.0
    negative_text: str = ""
    notes: str = ""
    vae: str = ""

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Notes:
        """The notes in a table read from a file; values of another kind than expected are left out."""
        texts = {name: table.get(key) for name, key in KEYS.items() if name != "preferred_weight"}
        weight = table.get(KEYS["preferred_weight"], 0)
        return cls(
            **{name: value for name, value in texts.items() if isinstance(value, str)},
            preferred_weight=_weight(weight),
        )


def _weight(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) and abs(value) <= MAX_WEIGHT else 0.0


def notes_path(model: Path) -> Path:
    """Where the notes on a model file are."""
    return model.with_suffix(".json")


def read_table(path: Path) -> dict[str, Any]:
    """The table in a file of notes, empty when there is none.  Raises RequestError when it is no table."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RequestError(f"{path.name} cannot be read: {error.strerror}.") from error
    try:
        table = json.loads(raw) if len(raw) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise RequestError(f"{path.name} beside the model is no table of notes; move it away to write notes there.")
    return table


def read_notes(model: Path) -> Notes:
    """The notes on a model file; empty ones when there are none that can be read."""
    try:
        return Notes.from_table(read_table(notes_path(model)))
    except RequestError:
        return Notes()


def write_notes(model: Path, changes: Mapping[str, Any]) -> Notes:
    """Change the notes on a model file, by our field names, and return them; whatever else stands in the file stays.

    Raises RequestError for a field that is not known, a value of another kind, and a file that cannot be written.
    """
    path = notes_path(model)
    table = read_table(path)
    for name, value in changes.items():
        table[_key(name)] = _checked(name, value)
    text = json.dumps(table, indent=4, ensure_ascii=False)
    data = text.encode("utf-8", "replace")
    if len(data) > MAX_BYTES:
        raise RequestError(f"The notes have {len(data)} bytes; at most {MAX_BYTES} are kept.")
    write_beside(path, data)
    return Notes.from_table(table)


def write_beside(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or as it was.  Raises RequestError when that fails."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _key(name: str) -> str:
    if name not in KEYS:
        raise RequestError(f'There is no note called "{name[:80]}"; there are {", ".join(KEYS)}.')
    return KEYS[name]


def _checked(name: str, value: Any) -> Any:
    if name == "preferred_weight":
        if _weight(value) != value or isinstance(value, bool):
            raise RequestError(f"The preferred weight must be a number of at most {MAX_WEIGHT:g}, 0 for none.")
        return value
    if not isinstance(value, str):
        raise RequestError(f"The note {name} must be a text.")
    return value


Place = tuple[str, int, int]
"""A file beside a model: path, size, mtime_ns."""


@dataclass(frozen=True)
class Beside:
    """The files in a folder that tell about the models there, by the model's name without suffix in lower case.

    Of the pictures those come first that AUTOMATIC1111 would show.
    """

    tables: Mapping[str, Place] = field(default_factory=dict)
    pictures: Mapping[str, Sequence[Place]] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: str) -> Beside:
        """Look into a folder; one that cannot be read has none."""
        tables: dict[str, Place] = {}
        pictures: dict[str, list[tuple[int, Place]]] = {}
        try:
            with os.scandir(folder) as listing:
                for entry in listing:
                    stem, _, suffix = entry.name.lower().rpartition(".")
                    if suffix == "json":
                        tables[stem] = _place(entry)
                    elif suffix in PICTURE_SUFFIXES:
                        place, rank = _place(entry), 2 * PICTURE_SUFFIXES.index(suffix)
                        pictures.setdefault(stem, []).append((rank, place))
                        pictures.setdefault(stem.removesuffix(".preview"), []).append((rank + 1, place))
        except OSError:
            pass
        return cls(tables, {stem: [place for _, place in sorted(found)] for stem, found in pictures.items()})

    def notes(self, stem: str) -> Place | None:
        """The file of notes on the model ``stem``."""
        return self.tables.get(stem.lower())

    def preview(self, stem: str, model: str) -> Place | None:
        """The picture that shows the model ``stem``, never the file ``model`` itself unless there is no other."""
        found = self.pictures.get(stem.lower(), ())
        return next((place for place in found if not place[0].endswith(f"{os.sep}{model}")), next(iter(found), None))


def _place(entry: os.DirEntry[str]) -> Place:
    stat = entry.stat()
    return entry.path, stat.st_size, stat.st_mtime_ns


def preview_target(model: Path, kind: str) -> Path:
    """Where a new preview of a model goes, so that it is the one that is shown.

    ``name.png``, as AUTOMATIC1111 writes it; ``name.preview.png`` for embeddings, where ``name.png`` could be one, and
    for hypernetworks.
    """
    plain = model.with_suffix(".png")
    if kind in ("embedding", "hypernet") and (plain == model or not plain.exists()):
        return model.with_suffix(".preview.png")
    return plain
