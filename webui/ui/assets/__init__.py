"""The page's own JavaScript, CSS and HTML, read from the files beside this one."""

from __future__ import annotations

from pathlib import Path


def read_asset(name: str, **parts: str) -> str:
    """The text of an asset file, each ``%name%`` of ``parts`` filled in."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    for part, value in parts.items():
        text = text.replace(f"%{part}%", value)
    return text
