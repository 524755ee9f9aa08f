"""What a model file says about itself, as far as people look for it, remembered by path, size and modification time.

Read from the header alone and cut to harmless lengths, because the file may come from anywhere.  Keys of the metadata:
kohya-ss/sd-scripts ``train_util.py`` (``ss_*``, ``sshs_*``), Stability-AI/ModelSpec (``modelspec.*``).
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol

from webui.checkpoints import pictures
from webui.checkpoints.formats import BUILT_IN, Formats
from webui.checkpoints.loaders import Outline
from webui.errors import WebUIError

_MAX_TEXT = 300
_MAX_DESCRIPTION = 2000
_MAX_TAG_JSON = 16 * 1024 * 1024
_MAX_TAG = 100
_KEPT_TAGS = 30
_BASES = (
    ("stable-diffusion-xl", "SDXL"), ("sdxl", "SDXL"), ("stable-diffusion-v3", "SD3"), ("sd3", "SD3"), ("flux", "Flux"),
    ("stable-diffusion-v2", "SD2"), ("sd_v2", "SD2"), ("stable-diffusion-v1", "SD1"), ("sd_v1", "SD1"),
)  # fmt: skip
"""What stands in ``ss_base_model_version`` or ``modelspec.architecture``, and the kind of model it means."""
_WIDTHS = {768: "SD1", 1024: "SD2", 1280: "SDXL", 2048: "SDXL"}
"""The kind of model by the width of what its cross-attention reads (1280 alone: a half of SDXL's)."""
_DETAILS = {
    "module": "ss_network_module", "rank": "ss_network_dim", "alpha": "ss_network_alpha",
    "resolution": "ss_resolution", "steps": "ss_steps", "clip skip": "ss_clip_skip",
}  # fmt: skip
_COMMIT_EVERY = 256
_TABLE = "facts_1"
"""Counts up when the facts of a file become other ones."""
_READS_TEXT = re.compile(r"to_k\.(weight|lora\.down|lora_A|lora_down)|to_k_lora\.down").search
"""The tensors of cross-attention that are as wide as what it reads."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a header tells.  Empty texts where it tells nothing; ``problem`` is a sentence about a file that is no use.

    ``alias`` is the name that the trainer gave (``ss_output_name``) or the word of an embedding inside a picture,
    ``base`` the kind of model it was made for, ``tags`` the most frequent words of its captions with their counts,
    ``network_hash`` the hash by which AUTOMATIC1111 knows a LoRA.  ``is_model`` is False for a plain picture.
    """

    alias: str = ""
    title: str = ""
    base: str = ""
    author: str = ""
    description: str = ""
    trigger: str = ""
    tags: tuple[tuple[str, int], ...] = ()
    network_hash: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    is_model: bool = True

    def to_json(self) -> str:
        """The facts as JSON, without what is empty."""
        values = ((name, getattr(self, name)) for name in _EMPTY)
        return json.dumps({name: value for name, value in values if value != _EMPTY[name]}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ModelFacts:
        """The inverse of :meth:`to_json`; of anything else what makes sense, for the database is a file like others."""
        try:
            data = json.loads(text)
            data["tags"] = tuple(map(tuple, data.get("tags", ())))
            return cls(**data)
        except (ValueError, TypeError, AttributeError):
            return cls()


_EMPTY = {one.name: getattr(ModelFacts(), one.name) for one in fields(ModelFacts)}


class ModelFile(Protocol):
    """What is known of a file without opening it."""

    @property
    def path(self) -> Path: ...
    @property
    def size(self) -> int: ...
    @property
    def mtime_ns(self) -> int: ...


def read_facts(path: Path, formats: Formats = BUILT_IN) -> ModelFacts:
    """What a file says about itself.  Never raises: a damaged or refused file has a ``problem``."""
    if path.suffix.lower() in pictures.SUFFIXES:
        found = pictures.embedding_in(path)
        return ModelFacts(is_model=False) if found is None else ModelFacts(alias=_text(found.word))
    try:
        outline = formats.read_outline(path)
    except WebUIError as error:
        return ModelFacts(problem=str(error)[: 2 * _MAX_TEXT])
    metadata = outline.metadata
    return ModelFacts(
        alias=_text(metadata.get("ss_output_name")),
        title=_text(metadata.get("modelspec.title")),
        base=_base(outline),
        author=_text(metadata.get("modelspec.author")),
        description=_text(metadata.get("modelspec.description") or metadata.get("starter.note"), _MAX_DESCRIPTION),
        trigger=_text(metadata.get("modelspec.trigger_phrase")),
        tags=_tags(metadata.get("ss_tag_frequency", "")),
        network_hash=_text(metadata.get("sshs_model_hash")).casefold(),
        details={name: _text(metadata[key]) for name, key in _DETAILS.items() if _text(metadata.get(key))},
    )


def _text(value: str | None, length: int = _MAX_TEXT) -> str:
    """A text of the metadata in one piece; kohya's trainer writes "None" where there is none."""
    return "" if value is None or value == "None" else " ".join(value[: 4 * length].split())[:length]


def _tags(text: str) -> tuple[tuple[str, int], ...]:
    """The most frequent tags of ``{folder: {tag: count}}``, those of all folders together."""
    if not text or len(text) > _MAX_TAG_JSON:
        return ()
    try:
        folders = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    total: Counter[str] = Counter()
    for tags in folders.values() if isinstance(folders, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if isinstance(count, int) and not isinstance(count, bool) and 0 < count < 1 << 53:
                total[tag] += count
    return tuple((_text(tag, _MAX_TAG), count) for tag, count in total.most_common(_KEPT_TAGS) if tag.strip())


def _base(outline: Outline) -> str:
    stated = " ".join(outline.metadata.get(key, "") for key in ("ss_base_model_version", "modelspec.architecture"))
    for word, base in _BASES:
        if word in stated.casefold():
            return base
    if outline.metadata.get("ss_v2") == "True":
        return "SD2"
    shapes = outline.shapes
    if "clip_l" in shapes and "clip_g" in shapes:  # an embedding for both text encoders of SDXL
        return "SDXL"
    is_embedding = len(shapes) <= 2
    reading = (shape for name, shape in shapes.items() if is_embedding or ("attn2" in name and _READS_TEXT(name)))
    widths = (shape[1] for shape in reading if len(shape) >= 2 and isinstance(shape[1], int))
    return next((_WIDTHS[width] for width in widths if width in _WIDTHS), "")


def common_start(files: Sequence[ModelFile]) -> str:
    """The folder that all files are in, or below."""
    paths = [str(file.path) for file in files]
    return os.path.commonpath([min(paths), max(paths)]) if paths else ""


@dataclass(frozen=True)
class FactCache:
    """Remembered facts in the SQLite database at ``path``; its folder must exist.

    Without a database that can be written, everything still works and is read anew.
    """

    path: Path
    formats: Formats = BUILT_IN

    def texts_of(self, files: Iterable[ModelFile]) -> dict[str, str]:
        """The remembered facts of those files that have not changed since, as JSON, by path."""
        files = list(files)
        rows = self.texts(_TABLE, common_start(files))
        pairs = ((file, rows.get(str(file.path))) for file in files)
        return {str(file.path): row[2] for file, row in pairs if row and row[:2] == (file.size, file.mtime_ns)}

    def known(self, files: Iterable[ModelFile]) -> dict[str, ModelFacts]:
        """The remembered facts of those files that have not changed since, by path."""
        return {path: ModelFacts.from_json(text) for path, text in self.texts_of(files).items()}

    def of(self, files: Sequence[ModelFile]) -> dict[str, ModelFacts]:
        """The facts of all files by path; those that are not known are read and remembered."""
        found = self.known(files)
        unknown = [file for file in files if str(file.path) not in found]
        for start in range(0, len(unknown), _COMMIT_EVERY):
            found |= self.read(unknown[start : start + _COMMIT_EVERY])
        return found

    def read(self, files: Sequence[ModelFile]) -> dict[str, ModelFacts]:
        """The facts of files by path, read anew and remembered."""
        found = {str(file.path): read_facts(file.path, self.formats) for file in files}
        self.remember([(file, found[str(file.path)]) for file in files if self._lasts(file, found[str(file.path)])])
        return found

    def _lasts(self, file: ModelFile, facts: ModelFacts) -> bool:
        """Whether an unchanged file keeps its facts: another edition of an extension may read what this one refuses."""
        return not facts.problem or file.path.suffix.lower() in BUILT_IN.suffixes

    def remember(self, pairs: Iterable[tuple[ModelFile, ModelFacts]]) -> None:
        """Keep what is known of files as they are now."""
        self.store(_TABLE, [(str(file.path), file.size, file.mtime_ns, facts.to_json()) for file, facts in pairs])

    def matching(self, files: Sequence[ModelFile], part: str) -> dict[str, ModelFacts]:
        """The facts, by path, of those files in whose facts as JSON ``part`` occurs, whether large or small letters.

        Files that are not known are read and remembered.
        """
        texts = self.texts_of(files)
        unknown = self.of([file for file in files if str(file.path) not in texts])
        texts |= {path: facts.to_json() for path, facts in unknown.items()}
        wanted = part.casefold()
        return {path: ModelFacts.from_json(text) for path, text in texts.items() if wanted in text.casefold()}

    def texts(self, table: str, start: str = "") -> dict[str, tuple[int, int, str]]:
        """Every remembered (size, mtime_ns, text) of a table by path, of paths that begin with ``start``."""
        try:
            with closing(self._connect(table)) as database:
                rows = database.execute(
                    f"SELECT path, size, mtime_ns, text FROM {table} WHERE path >= ? AND path < ?",
                    (start, f"{start}\U0010ffff"),
                ).fetchall()
        except sqlite3.Error:
            return {}
        return {path: (size, mtime_ns, text) for path, size, mtime_ns, text in rows}

    def store(self, table: str, rows: Sequence[tuple[str, int, int, str]]) -> None:
        """Keep texts about files: (path, size, mtime_ns, text)."""
        try:
            with closing(self._connect(table)) as database, database:
                database.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error:
            return  # read-only or full disk: read again next time

    def _connect(self, table: str) -> sqlite3.Connection:
        assert table.isidentifier()
        database = sqlite3.connect(self.path, timeout=10)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(
            f"CREATE TABLE IF NOT EXISTS {table} (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, text TEXT)"
        )
        return database
