"""Gives memory back to the system.  The settings in ``executor.MALLOC`` let glibc keep all that was ever used."""

from __future__ import annotations

import ctypes
import platform


def give_back() -> None:
    """Return freed blocks to the system: after a model was exchanged.  Does nothing where the C library is another."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
