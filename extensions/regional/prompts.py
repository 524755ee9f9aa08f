"""prompt -> the texts of its regions, and of what holds for all of them.

Words as in hako-mikan/sd-webui-regional-prompter (README): ``BREAK`` divides regions; ``ADDROW`` and ``ADDCOL`` divide
them and say where; the text before ``ADDCOMM`` is put before every other one, that before ``ADDBASE`` holds for the
whole picture.  Or each line is a region, as in Haoming02/sd-forge-couple.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

BREAK, LINES = "BREAK", "Lines"
ROW, COLUMN, COMMON, BASE = "ADDROW", "ADDCOL", "ADDCOMM", "ADDBASE"
_DIVIDERS = re.compile(rf"\b({BREAK}|{ROW}|{COLUMN})\b")


@dataclass(frozen=True)
class Texts:
    """``base`` is None without one.  ``bands`` counts the regions of each row (or column) that ADDROW and ADDCOL make.

    Without these words it is None: the texts say nothing of their places.  ``common`` is what each text begins with.
    """

    regions: tuple[str, ...]
    base: str | None = None
    bands: tuple[int, ...] | None = None
    common: str = field(default="", compare=False)

    @property
    def own(self) -> tuple[str, ...]:
        """The regions' texts without the common one."""
        return tuple(text.removeprefix(f"{self.common}, ") for text in self.regions)


def split(prompt: str, separator: str, *, common: bool, base: bool, new_band: str = ROW) -> Texts:
    """The texts of a prompt.  With ``common`` its first one is a common one, with ``base`` the next one the base.

    The words ADDCOMM and ADDBASE say so, too.  ``new_band`` is the word that begins another row or column.
    """
    common_text, prompt = _before(COMMON, prompt)
    base_text, prompt = _before(BASE, prompt)
    chunks, dividers = _divided(prompt, separator)
    if common and common_text is None:
        common_text, chunks, dividers = _first(chunks, dividers)
    if base and base_text is None:
        base_text, chunks, dividers = _first(chunks, dividers)
    regions = tuple(_joined(common_text, chunk) for chunk in chunks)
    return Texts(
        regions,
        base_text if base_text is None else _joined(common_text, base_text),
        _bands(dividers, new_band),
        common_text or "",
    )


def _before(word: str, prompt: str) -> tuple[str | None, str]:
    """What stands before a word and what after it; None and everything without the word."""
    found = re.search(rf"\b{word}\b", prompt)
    return (prompt[: found.start()].strip(), prompt[found.end() :]) if found else (None, prompt)


def _divided(prompt: str, separator: str) -> tuple[list[str], list[str]]:
    """The texts, and the words between them."""
    if separator == LINES:
        lines = [line.strip() for line in prompt.splitlines() if line.strip()]
        return lines or [""], [BREAK] * (len(lines) - 1)
    pieces = _DIVIDERS.split(prompt)
    return [piece.strip() for piece in pieces[::2]], pieces[1::2]


def _first(chunks: list[str], dividers: list[str]) -> tuple[str, list[str], list[str]]:
    """The first text and what is left; the last text stays."""
    if len(chunks) == 1:
        return "", chunks, dividers
    return chunks[0], chunks[1:], dividers[1:]


def _joined(common: str | None, text: str) -> str:
    return ", ".join(filter(None, (common, text)))


def _bands(dividers: list[str], new_band: str) -> tuple[int, ...] | None:
    if not {ROW, COLUMN} & set(dividers):
        return None
    counts = [1]
    for word in dividers:
        if word == new_band:
            counts.append(1)
        else:
            counts[-1] += 1
    return tuple(counts)
