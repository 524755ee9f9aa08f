"""Pictures in a table with names beside the rows and above the columns: the overview of a script's pictures.

Proportions of AUTOMATIC1111 1.10 (``modules/images.py``, ``draw_grid_annotations``): the letters' height is a 25th of a
picture's width and height together, and names of rows get three quarters of a picture's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from webui.result import Pixels

INK, FAINT, PAPER = "#000000", "#999999", "#ffffff"
SMALLEST = 6

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Text = tuple[str, bool]
"""A text and whether it holds; one that does not is faint and struck through."""
Texts = Sequence[Sequence[Text]]


@dataclass(frozen=True)
class _Frame:
    """Measures in pixels: a cell's size, and the room for names."""

    width: int
    height: int
    left: int
    top: int
    size: int


def labelled(
    pictures: Sequence[Pixels], columns: int, top: Texts = (), left: Texts = (), title: str = "", margin: int = 0
) -> Pixels:
    """The pictures row by row in ``columns``, each (h, w, 3) uint8, on white, with ``margin`` pixels between them.

    ``top`` holds the texts above each column, one below the other, ``left`` those beside each row.  At least one
    picture is needed; every cell has the size of the largest.
    """
    rows = -(-len(pictures) // columns)
    frame = _frame(pictures, top, left)
    below_title = frame.size * 2 if title else 0
    width = frame.left + columns * frame.width + (columns - 1) * margin
    height = below_title + frame.top + rows * frame.height + (rows - 1) * margin
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        _write(draw, [(title, True)], (width // 2, below_title // 2), width, frame.size)
    for column, texts in enumerate(top):
        centre = frame.left + column * (frame.width + margin) + frame.width // 2
        _write(draw, texts, (centre, below_title + frame.top // 2), frame.width, frame.size)
    for row, texts in enumerate(left):
        middle = below_title + frame.top + row * (frame.height + margin) + frame.height // 2
        _write(draw, texts, (frame.left // 2, middle), frame.left, frame.size)
    for place, picture in enumerate(pictures):
        x = frame.left + place % columns * (frame.width + margin)
        y = below_title + frame.top + place // columns * (frame.height + margin)
        sheet.paste(Image.fromarray(picture), (x, y))
    return np.array(sheet)


def side_by_side(sheets: Sequence[Pixels], margin: int = 0) -> Pixels:
    """Several sheets in one row, on white."""
    height = max(sheet.shape[0] for sheet in sheets)
    width = sum(sheet.shape[1] for sheet in sheets) + margin * (len(sheets) - 1)
    whole = np.full((height, width, 3), 255, np.uint8)
    x = 0
    for sheet in sheets:
        whole[: sheet.shape[0], x : x + sheet.shape[1]] = sheet
        x += sheet.shape[1] + margin
    return whole


def _frame(pictures: Sequence[Pixels], top: Texts, left: Texts) -> _Frame:
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    size = max((width + height) // 25, SMALLEST)
    most = max((sum(1 for text, _ in texts if text) for texts in top), default=0)
    beside = any(text for texts in left for text, _ in texts)
    letters = round(size * 0.8)  # a capital's height, about
    above = most * letters + (most - 1) * (size // 2) + size // 2 * 2 if most else 0
    return _Frame(width, height, width * 3 // 4 if beside else 0, above, size)


def _write(draw: ImageDraw.ImageDraw, texts: Sequence[Text], middle: tuple[int, int], room: int, size: int) -> None:
    """Texts one below the other around a point, each made smaller until it fits the room."""
    shown = [(text, holds) for text, holds in texts if text]
    step = round(size * 0.8) + size // 2
    y = middle[1] - step * (len(shown) - 1) / 2
    for text, holds in shown:
        font = _fitting(draw, text, room, size)
        draw.text((middle[0], y), text, INK if holds else FAINT, font=font, anchor="mm")
        if not holds:
            half = draw.textlength(text, font=font) / 2
            draw.line((middle[0] - half, y, middle[0] + half, y), FAINT, max(size // 8, 1))
        y += step


def _fitting(draw: ImageDraw.ImageDraw, text: str, room: int, size: int) -> Font:
    while size > SMALLEST and draw.textlength(text, font=ImageFont.load_default(size)) > room * 0.95:
        size -= 1
    return ImageFont.load_default(size)
