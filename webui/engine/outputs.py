"""Writing finished pictures so that a file that is there is whole: temporary file, fsync, rename, fsync folder."""

from __future__ import annotations

import errno
import os
import re
import uuid
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from webui.errors import OutputError

TEMPORARY = ".tmp-"
_NUMBER = re.compile(r"(\d{5,})-")


@dataclass(frozen=True)
class OutputFolder:
    """The outputs folder: ``txt2img-images/2026-11-22/00001-SEED.png`` below ``root``."""

    root: Path

    def save(self, data: bytes, *, kind: str, seed: int, suffix: str = ".png", stem: str = "") -> Path:
        """Write a picture under the next free number; returns its path.  Raises OutputError, leaving nothing half.

        Behind the number stands ``stem``, or without one the seed.
        """
        folder = self.root / f"{kind}-images" / date.today().isoformat()
        return OutputFolder(folder).save_here(data, seed=seed, suffix=suffix, stem=stem)

    def save_sheet(self, data: bytes, *, kind: str, seed: int, suffix: str = ".png") -> Path:
        """Write the overview of several pictures into the folder for those; returns its path.  Raises OutputError."""
        folder = self.root / f"{kind}-grids" / date.today().isoformat()
        return OutputFolder(folder).save_here(data, seed=seed, suffix=suffix)

    def save_here(self, data: bytes, *, seed: int, suffix: str = ".png", stem: str = "") -> Path:
        """Write a picture under the next free number into ``root`` itself."""
        folder = self.root
        try:
            folder.mkdir(parents=True, exist_ok=True)
            number = _next_number(folder)
            while True:
                target = folder / f"{number:05d}-{stem or seed}{suffix}"
                if write_atomically(target, data, replace=False):
                    return target
                number += 1
        except OSError as error:
            raise output_error(folder, error) from error

    def clean(self) -> None:
        """Remove temporary files that a killed process left behind."""
        for leftover in self.root.rglob(f"{TEMPORARY}*"):
            if leftover.is_file() and not leftover.is_symlink():
                leftover.unlink(missing_ok=True)


def write_atomically(target: Path, data: bytes, *, replace: bool = True) -> bool:
    """Write ``target`` so that it is either whole or absent; with ``replace`` False an existing file wins (False)."""
    temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if not replace and not _claim(temporary, target):
            return False
        if replace:
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)
    return True


def output_error(folder: Path, error: OSError) -> OutputError:
    """The sentence for a picture that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"The disk of {folder} is full; free some space and start the job again.")
    return OutputError(f"The picture could not be written to {folder}: {error.strerror or error}.")


def _claim(temporary: Path, target: Path) -> bool:
    """Give the finished file its name unless the name is taken; a hard link does both in one step."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except (OSError, NotImplementedError):  # a file system without hard links: one writer at a time must do
        if target.exists():
            return False
        temporary.rename(target)
    return True


def _next_number(folder: Path) -> int:
    found = (_NUMBER.match(entry.name) for entry in os.scandir(folder))
    return max((int(match.group(1)) for match in found if match), default=0) + 1


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # Windows has no handle on a folder that could be flushed
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
