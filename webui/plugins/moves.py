"""Changes of the extensions folder that are made whole or not at all, whenever the program may be killed.

A change is a list of renames inside one file system, written down before the first of them; what a kill left undone is
done at the next start.  Everything of the installer lies in the folder ``.webui`` there, which the loader passes over.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from webui.errors import InstallError
from webui.plugins.switches import write_whole

HIDDEN = ".webui"
JOURNAL = "journal.json"
INCOMING = "incoming"
"""Below it everything is unfinished: whoever holds the lock may remove it."""
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Move:
    """A rename; both are relative to the extensions folder, with ``/``.

    It is left out when its source is not there, or its target is: so a list of moves can be begun again at any point.
    Of no list may a target be one that an earlier move of it has filled.
    """

    source: str
    target: str


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[None]:
    """The one change of an extensions folder at a time, over all processes.  Raises InstallError."""
    try:
        (folder / HIDDEN).mkdir(parents=True, exist_ok=True)
        with FileLock(folder / HIDDEN / "lock", timeout=PATIENCE_S):
            _finish(folder)
            shutil.rmtree(folder / HIDDEN / INCOMING, ignore_errors=True)
            try:
                yield
            finally:
                if not (folder / HIDDEN / JOURNAL).exists():  # else what is there is still to be moved
                    shutil.rmtree(folder / HIDDEN / INCOMING, ignore_errors=True)
    except Timeout as error:
        raise InstallError("Another change of the extensions is under way; try again when it is done.") from error
    except OSError as error:
        raise InstallError(f"The extensions folder {folder} cannot be changed: {error.strerror or error}.") from error


def carry_out(folder: Path, moves: Sequence[Move]) -> None:
    """Do all moves, in order; inside :func:`changing`.  Raises InstallError before the first when a target is taken."""
    left: set[str] = set()
    for move in moves:
        if _present(folder / move.target) and move.target not in left:
            raise InstallError(f'"{move.target}" is there already in the extensions folder; move it away first.')
        left.add(move.source)
    written = [[move.source, move.target] for move in moves]
    write_whole(folder / HIDDEN / JOURNAL, json.dumps(written).encode())
    _finish(folder)


def finish_interrupted(folder: Path) -> None:
    """Do the rest of a change that was interrupted.  Called at every start.  Raises InstallError."""
    if (folder / HIDDEN / JOURNAL).exists():
        with changing(folder):
            pass


def _finish(folder: Path) -> None:
    journal = folder / HIDDEN / JOURNAL
    try:
        moves = [Move(*pair) for pair in json.loads(journal.read_bytes())]
    except FileNotFoundError:
        return
    except (ValueError, TypeError):
        journal.replace(journal.with_suffix(".unreadable"))
        return
    for move in moves:
        source, target = folder / _inside(move.source), folder / _inside(move.target)
        if _present(source) and not _present(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
    journal.unlink()


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise InstallError(f'The journal of the extensions folder names "{name}", which leads out of it.')
    return path


def _present(path: Path) -> bool:
    return path.exists() or path.is_symlink()
