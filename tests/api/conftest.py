from __future__ import annotations

from tiny_model import tiny_checkpoint  # noqa: F401
