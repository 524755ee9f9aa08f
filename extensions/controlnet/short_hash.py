"""AUTOMATIC1111's old hash of a model file, which ControlNet still shows behind a model's name.  No torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

START, LENGTH, DIGITS = 2**20, 2**16, 8


def short_hash(path: Path) -> str:
    """8 digits of the SHA-256 of 64 KiB from 1 MiB on; empty for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(START)
            return hashlib.sha256(file.read(LENGTH)).hexdigest()[:DIGITS]
    except OSError:
        return ""
