"""Python processes of this program: where they find it, and how one ended."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path


def python_path() -> dict[str, str]:
    """Where a process finds this package; the current folder, where any file could be, is not on its path (-P)."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    if root == sysconfig.get_path("purelib"):
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


def exit_words(code: int) -> str:
    """How a process ended, as a person reads it: its name comes before."""
    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
