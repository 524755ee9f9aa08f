"""One server at a time on an outputs folder: two would take up each other's jobs.

The operating system holds the lock for the life of the process, so that a killed server leaves none behind.
"""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from webui.errors import OutputError


def claim(state_dir: Path) -> FileLock:
    """The lock on a state folder, held; release it with ``release()``.  Raises OutputError when another holds it."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(state_dir / "server.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputError(
            f"Another server already works on {state_dir.parent}; stop that one, or choose another --outputs-dir."
        ) from None
    except OSError as error:
        raise OutputError(f"The outputs folder {state_dir.parent} cannot be used: {error.strerror}.") from error
    return lock
