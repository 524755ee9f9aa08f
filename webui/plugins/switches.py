"""Which extensions are switched off: a small file in the state folder, written whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import uuid
from pathlib import Path

from filelock import FileLock

log = logging.getLogger(__name__)

FILE = "extensions.json"
LOCK = "extensions.lock"
PATIENCE_S = 10.0
TEMPORARY = ".part-"


def disabled_names(state_dir: Path) -> frozenset[str]:
    """The names of the extensions that are switched off.  A file that cannot be read switches none off, and is told."""
    file = state_dir / FILE
    try:
        values = json.loads(file.read_bytes())
        names = values["disabled"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("disabled must be a list of names")
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("%s cannot be read (%s: %s); no extension is switched off.", file, type(error).__name__, error)
        return frozenset()
    return frozenset(names)


def switch(state_dir: Path, name: str, *, on: bool) -> None:
    """Switch an extension on or off, from the next start.

    One at a time over all threads and processes, so that no switch is lost.  Raises OSError when the file cannot be
    written.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(state_dir / LOCK, timeout=PATIENCE_S):
        names = disabled_names(state_dir)
        names = names - {name} if on else names | {name}
        write_whole(state_dir / FILE, json.dumps({"disabled": sorted(names)}, indent=2).encode())


def write_whole(target: Path, data: bytes) -> None:
    """Write a file so that a reader finds the old bytes or the new ones, whenever the program may be killed."""
    temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
