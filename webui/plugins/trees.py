"""The files of a stranger's folder, written one by one below a folder of ours: every rule about them is here.

A Git commit, a zip and a folder all pass through :class:`TreeWriter`, so that none of them can write elsewhere, hide a
file behind another's name, or fill the disk.  Files lose their rights: none arrives executable.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from webui.errors import InstallError
from webui.plugins.tree_hash import LEFT_OUT

MAX_FILES = 5000
MAX_BYTES = 256 * 1024**2
"""Of all files together, as they lie on the disk."""
MAX_NAME = 240
"""Characters of a file's name with its folders; Windows stops at 260 with the folder that it is in."""
BLOCK = 1 << 20
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_FORBIDDEN = set('<>:"|?*\\')


class TreeWriter:
    """Writes files below ``root``, which must not exist yet.

    Compiled files and repositories (``tree_hash.LEFT_OUT``) are passed over: they are not hashed, so nothing of them
    may ever run.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bytes = 0
        self.files = 0
        self._known: dict[tuple[str, ...], tuple[str, bool]] = {}
        root.mkdir(parents=True)

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write one file.  ``name`` is relative, with ``/``.  Raises InstallError for what is refused."""
        parts = checked_parts(name)
        if any(part.casefold() in LEFT_OUT for part in parts):
            return
        self._claim(name, parts)
        target = self.root.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            for block in blocks:
                self.bytes += len(block)
                if self.bytes > MAX_BYTES:
                    raise too_large()
                file.write(block)

    def _claim(self, name: str, parts: tuple[str, ...]) -> None:
        """Refuse one file more than there may be, and names that are one name on some disks."""
        self.files += 1
        if self.files > MAX_FILES:
            raise too_many()
        for depth in range(1, len(parts) + 1):
            path, is_file = "/".join(parts[:depth]), depth == len(parts)
            key = tuple(unicodedata.normalize("NFC", part).casefold() for part in parts[:depth])
            known = self._known.setdefault(key, (path, is_file))
            if known != (path, is_file) or (is_file and self.root.joinpath(*parts).exists()):
                raise InstallError(f"It holds {shown(known[0])} and {shown(name)}, which are one name on some disks.")


def checked_parts(name: str) -> tuple[str, ...]:
    """The folders and the file that a relative name with ``/`` names.  Raises InstallError when it leads elsewhere."""
    parts = tuple(name.split("/"))
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name):
        raise InstallError(f"It holds a file {shown(name)}, which leads out of its folder.")
    for part in parts:
        wrong = not part or part == "." or part[-1] in ". " or _RESERVED.fullmatch(part) or set(part) & _FORBIDDEN
        if wrong or not part.isprintable():
            raise InstallError(f"It holds a file {shown(name)}, a name that not every system can keep.")
    if len(name) > MAX_NAME:
        raise InstallError(f"It holds a file {shown(name)}, whose name is longer than {MAX_NAME} characters.")
    return parts


def copy_folder(source: Path, writer: TreeWriter) -> None:
    """Copy a folder's files.  Raises InstallError for links, devices and whatever else is no plain file."""
    for folder, folders, files in os.walk(source, onerror=_unreadable):
        folders[:] = [name for name in folders if name.casefold() not in LEFT_OUT]
        for name in folders:
            if Path(folder, name).is_symlink():
                raise is_link(_relative(Path(folder, name), source))
        for name in sorted(files):
            if name.casefold() not in LEFT_OUT:
                path = Path(folder, name)
                writer.write(_relative(path, source), read_plainly(path, _relative(path, source)))


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def read_plainly(path: Path, name: str) -> Iterator[bytes]:
    """The blocks of a plain file; a link, a device or a pipe is refused before anything of it is read."""
    if path.is_symlink():
        raise is_link(name)
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        opened = os.open(path, flags)
    except OSError as error:
        raise InstallError(f"{shown(name)} cannot be read: {error.strerror}.") from error
    with os.fdopen(opened, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise no_file(name)
        while block := file.read(BLOCK):
            yield block


def is_link(name: str) -> InstallError:
    """The sentence for a symbolic link."""
    return InstallError(f"It holds a link, {shown(name)}; links can lead anywhere and are not installed.")


def no_file(name: str) -> InstallError:
    """The sentence for a device, a pipe, a socket."""
    return InstallError(f"It holds {shown(name)}, which is no plain file.")


def too_large() -> InstallError:
    """The sentence for more bytes than are taken."""
    return InstallError(f"Its files are larger than {MAX_BYTES // 1024**2} MB together; so much is not installed.")


def too_many() -> InstallError:
    """The sentence for more files than are taken."""
    return InstallError(f"It holds more than {MAX_FILES} files; so many are not installed.")


def _unreadable(error: OSError) -> None:
    raise InstallError(f"{error.filename} cannot be read: {error.strerror}.") from error


def shown(name: str) -> str:
    """A file's name in quotes, with nothing in it that cannot be shown."""
    text = "".join(letter if letter.isprintable() else "?" for letter in name)
    return f'"{text if len(text) <= 100 else f"{text[:99]}…"}"'
