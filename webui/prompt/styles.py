"""styles.csv: named texts that are put around or behind a prompt.

The file of AUTOMATIC1111 (``modules/styles.py``): UTF-8 with or without a mark at its beginning, columns ``name``,
``prompt`` and ``negative_prompt`` (in old files ``text`` for ``prompt``).  A style with ``{prompt}`` in it is put
around the prompt, another behind it after a comma.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from webui.errors import RequestError

PLACE = "{prompt}"
_COLUMNS = ("name", "prompt", "negative_prompt")
_SPACES = re.compile("  +")


@dataclass(frozen=True)
class Style:
    """A style's name and its two texts; an empty text changes nothing."""

    name: str
    prompt: str = ""
    negative_prompt: str = ""


@dataclass(frozen=True)
class Unstyled:
    """Prompts without the styles that were found in them; ``names`` in the order in which they were applied."""

    prompt: str
    negative_prompt: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Styles:
    """All styles by name."""

    by_name: Mapping[str, Style] = field(default_factory=dict)

    @classmethod
    def read(cls, paths: Iterable[Path]) -> Styles:
        """The styles of files; of two of a name the first, files that are not there left out.

        Raises RequestError for a file that is no table with these columns.
        """
        styles: dict[str, Style] = {}
        for path in paths:
            if path.is_file():
                for style in _rows(path):
                    styles.setdefault(style.name, style)
        return cls(styles)

    def write(self, path: Path) -> None:
        """Save all styles; what stood in the file before is kept beside it as ``.bak``."""
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        writer.writerow(_COLUMNS)
        writer.writerows((style.name, style.prompt, style.negative_prompt) for style in self.by_name.values())
        if path.is_file():
            _put(path.with_name(f"{path.name}.bak"), path.read_bytes())
        _put(path, table.getvalue().encode("utf-8-sig", "replace"))

    def apply(self, names: Sequence[str], prompt: str, negative_prompt: str) -> tuple[str, str]:
        """Both prompts with the styles of these names, in their order.  Raises RequestError for an unknown name."""
        for name in names:
            style = self.by_name.get(name)
            if style is None:
                raise RequestError(f'There is no style "{name[:80]}"; choose one of the list or write it first.')
            prompt, negative_prompt = merged(style.prompt, prompt), merged(style.negative_prompt, negative_prompt)
        return prompt, negative_prompt

    def extract(self, prompt: str, negative_prompt: str) -> Unstyled:
        """The prompts without every style that both of them end with or stand in; the last one applied goes first."""
        names: list[str] = []
        left = dict(self.by_name)
        while left:
            for name, style in left.items():
                without = _without(style, prompt, negative_prompt)
                if without is not None:
                    prompt, negative_prompt = without
                    names.append(name)
                    del left[name]
                    break
            else:
                break
        return Unstyled(prompt, negative_prompt, tuple(reversed(names)))


def merged(style: str, prompt: str) -> str:
    """A prompt with a style's text.

    >>> merged("portrait of {prompt}, oil", "a cat"), merged("oil", "a cat")
    ('portrait of a cat, oil', 'a cat, oil')
    """
    if PLACE in style:
        return style.replace(PLACE, prompt)
    return ", ".join(filter(None, (prompt.strip(), style.strip())))


def _without(style: Style, prompt: str, negative_prompt: str) -> tuple[str, str] | None:
    """Both prompts without a style, None where one of them does not carry it."""
    if not style.prompt and not style.negative_prompt:
        return None
    positive = _unmerged(style.prompt, prompt)
    negative = _unmerged(style.negative_prompt, negative_prompt)
    return None if positive is None or negative is None else (positive, negative)


def _unmerged(style: str, prompt: str) -> str | None:
    """What :func:`merged` was given; runs of spaces count as one, as AUTOMATIC1111 compares."""
    if not style:
        return prompt
    text, style = _SPACES.sub(" ", prompt.strip()), _SPACES.sub(" ", style.strip())
    left, place, right = style.partition(PLACE)
    if place:
        fits = len(text) >= len(left) + len(right) and text.startswith(left) and text.endswith(right)
        return text[len(left) : len(text) - len(right)] if fits else None
    return text.removesuffix(style).removesuffix(", ") if text.endswith(style) else None


def _rows(path: Path) -> list[Style]:
    text = path.read_bytes().decode("utf-8-sig", "replace").replace("\0", "")
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        if not text.strip():
            return []
        if "name" not in (reader.fieldnames or ()):
            raise RequestError(f'{path.name} has no column "name"; its first line must be "{",".join(_COLUMNS)}".')
        rows = list(reader)
    except csv.Error as error:
        raise RequestError(f"{path.name} is no table of styles: {error}.") from error
    return [
        Style(row["name"], row.get("prompt") or row.get("text") or "", row.get("negative_prompt") or "")
        for row in rows
        if row.get("name")
    ]


def _put(path: Path, data: bytes) -> None:
    """Write a file so that it is whole at every moment."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)
