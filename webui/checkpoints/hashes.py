"""Full SHA-256 of model files, computed once and remembered by path, size and modification time.

The table is a small SQLite database, so that two processes can share it.  A hash that cannot be stored is still right.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

PIECE_BYTES = 4 * 1024 * 1024


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def both_sha256(path: Path, start: int, between: Callable[[], None]) -> tuple[str, str]:
    """The SHA-256 of a file's bytes, and that of those from ``start`` on, read once.

    ``between`` is called before each piece; what it raises ends the reading.
    """
    whole, data = hashlib.sha256(), hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        first = file.read(start)
        whole.update(first)
        between()
        while piece := file.read(PIECE_BYTES):
            whole.update(piece)
            data.update(piece)
            between()
    return whole.hexdigest(), data.hexdigest()


@dataclass(frozen=True)
class HashCache:
    """Remembered hashes in the database at ``path``; its folder must exist."""

    path: Path

    def known(self) -> dict[str, tuple[int, int, str]]:
        """Every remembered (size, mtime_ns, sha256) by absolute path."""
        try:
            with closing(self._connect()) as database:
                rows = database.execute("SELECT path, size, mtime_ns, sha256 FROM hashes").fetchall()
        except sqlite3.Error:
            return {}
        return {path: (size, mtime_ns, sha256) for path, size, mtime_ns, sha256 in rows}

    def sha256(self, path: Path) -> str:
        """The SHA-256 of ``path``, from the table when size and modification time are unchanged."""
        path = path.resolve()
        stat = path.stat()
        remembered = self._remembered(path)
        if remembered and remembered[:2] == (stat.st_size, stat.st_mtime_ns):
            return remembered[2]
        digest = file_sha256(path)
        self.remember(path, stat.st_size, stat.st_mtime_ns, digest)
        return digest

    def _remembered(self, path: Path) -> tuple[int, int, str] | None:
        try:
            with closing(self._connect()) as database:
                found = database.execute("SELECT size, mtime_ns, sha256 FROM hashes WHERE path = ?", (str(path),))
                row: tuple[int, int, str] | None = found.fetchone()
        except sqlite3.Error:
            return None
        return row

    def remember(self, path: Path, size: int, mtime_ns: int, digest: str) -> None:
        """Keep the hash of a file, named without links, that has this size and modification time."""
        try:
            with closing(self._connect()) as database, database:
                database.execute(
                    "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)", (str(path), size, mtime_ns, digest)
                )
        except sqlite3.Error:
            return  # read-only or full disk: the hash is computed again next time

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=10)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT)"
        )
        return database
