"""The page's own JavaScript and CSS, read from the files beside this one."""

from __future__ import annotations

from pathlib import Path


def read_asset(name: str) -> str:
    """The text of an asset file."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
