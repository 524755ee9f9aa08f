"""One SHA-256 over a folder's files: what an extension is, byte for byte, whatever it calls its version.

Called by the installer (what was shown is what is moved in) and by the recipe in a picture (what took part).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

LEFT_OUT = frozenset({"__pycache__", ".git"})
"""Folders and files that are no part of what an extension is: they differ between two copies of the same one."""
READ_BYTES = 1 << 20


def tree_hash(path: Path) -> str:
    """The SHA-256, 64 hexadecimal digits, of the file or of every file below the folder ``path``.

    Of each file, in the order of its relative POSIX name in UTF-8: the name's length in bytes (8 bytes, big-endian),
    the name, the content's length (likewise), the SHA-256 of the content (32 bytes).  A file alone counts under its own
    name, so that ``extensions/one.py`` has the hash of a folder with that one file.  A symbolic link counts as the file
    it names; linked folders are not entered.  Times and rights do not count.  Raises OSError when something cannot be
    read.
    """
    digest = sha256()
    for name, file in tree_files(path):
        encoded = os.fsencode(name)
        content = sha256()
        length = 0
        with file.open("rb") as stream:
            while block := stream.read(READ_BYTES):
                content.update(block)
                length += len(block)
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
        digest.update(length.to_bytes(8, "big") + content.digest())
    return digest.hexdigest()


def tree_files(path: Path) -> Iterator[tuple[str, Path]]:
    """Every file of the folder ``path`` (or the file itself), by relative POSIX name, in the order of those names."""
    if not path.is_dir():
        yield path.name, path
        return
    found = []
    for folder, folders, files in os.walk(path, onerror=_unreadable):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        found += [Path(folder, name) for name in files if name not in LEFT_OUT]
    named = {file.relative_to(path).as_posix(): file for file in found}
    for name in sorted(named, key=os.fsencode):
        yield name, named[name]


def _unreadable(error: OSError) -> None:
    """A folder that cannot be listed must not look like an empty one."""
    raise error
