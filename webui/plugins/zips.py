"""An extension from a zip file: every entry is judged before its bytes are, and bytes are counted as they inflate."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from webui.errors import InstallError
from webui.plugins.trees import BLOCK, MAX_BYTES, MAX_FILES, TreeWriter, is_link, no_file, too_large, too_many

MAX_ZIP = 128 * 1024**2
MAX_DIRECTORY = 4 * 1024**2
"""Bytes of the zip's list of entries: read as a whole, before they can be counted."""
_END, _END_SIZE = b"PK\x05\x06", 22
_ZIP64, _ZIP64_SIZE = b"PK\x06\x07", 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


def copy_zip(path: Path, writer: TreeWriter) -> None:
    """Write the zip's files; when all lie in one folder, as in downloads of a repository, what is in that folder.

    Raises InstallError for what is refused: damaged, encrypted or huge zips, links, names that lead out.
    """
    try:
        _check_sizes(path)
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not _is_folder(entry)]
            _check_entries(entries)
            common = _common_folder(entries)
            for entry in entries:
                writer.write(_name(entry)[len(common) :], _inflated(archive, entry))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InstallError(f"The zip is damaged: {error}.") from error
    except OSError as error:
        raise InstallError(f"The zip cannot be read: {error.strerror or error}.") from error


def _check_sizes(path: Path) -> None:
    """Refuse a zip whose list of entries would fill the memory (APPNOTE.TXT 4.3.16: the end of central directory)."""
    size = path.stat().st_size
    if size > MAX_ZIP:
        raise InstallError(f"The zip is larger than {MAX_ZIP // 1024**2} MB; so much is not installed.")
    with path.open("rb") as file:
        file.seek(max(0, size - 65535 - _END_SIZE - _ZIP64_SIZE))
        tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) < end + _END_SIZE:
        raise InstallError("This is no zip file.")
    count = int.from_bytes(tail[end + 10 : end + 12], "little")
    directory = int.from_bytes(tail[end + 12 : end + 16], "little")
    if tail[max(0, end - _ZIP64_SIZE) :].startswith(_ZIP64) or directory > MAX_DIRECTORY or count > 2 * MAX_FILES:
        raise too_many()


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind == stat.S_IFLNK:
            raise is_link(_name(entry))
        if kind not in (0, stat.S_IFREG):
            raise no_file(_name(entry))
        if entry.flag_bits & _ENCRYPTED:
            raise InstallError("The zip asks for a password; unpack it and install the folder.")
        if entry.compress_type not in _METHODS:
            raise InstallError("The zip is packed in a way that is not taken; pack it with deflate.")
    if len(entries) > MAX_FILES:
        raise too_many()
    if sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise too_large()


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    return _name(entry).endswith("/")


def _name(entry: zipfile.ZipInfo) -> str:
    """As it stands in the file: ``filename`` has been made harmless for this system, and could hide what it was."""
    return entry.orig_filename


def _common_folder(entries: list[zipfile.ZipInfo]) -> str:
    """``name/`` when every file lies in that one folder, else nothing."""
    first = {_name(entry).partition("/")[0] for entry in entries}
    if len(first) != 1 or not all("/" in _name(entry) for entry in entries):
        return ""
    (folder,) = first
    return f"{folder}/" if folder not in ("", ".", "..") else ""


def _inflated(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    with archive.open(entry) as file:
        while block := file.read(BLOCK):
            yield block
