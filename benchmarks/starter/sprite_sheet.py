"""The drawings that the judges learn from: one file beside this one, so that judging needs no download.

    python benchmarks/starter/sprite_sheet.py        makes ``sprites.webp`` anew from the pinned packages

162 tiles of 112 px: every object of the vocabulary but the plain shapes, flat in the upper half and 3D in the lower, in
the vocabulary's order.  WebP, because it keeps colour and alpha at this size in a third of a PNG's bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from webui.training.starter_data import artwork
from webui.training.starter_data.sprites import Rgba, SpriteBox, rasterised
from webui.training.starter_data.vocabulary import DRAWINGS

SHEET = Path(__file__).with_name("sprites.webp")
TILE = 112
COLUMNS = 18
FINISHES = ("flat", "3d")
QUALITY = 88


def sprites() -> dict[str, dict[str, Rgba]]:
    """Object -> finish ("flat", "3d") -> sprite (112, 112, 4)."""
    sheet = np.asarray(Image.open(SHEET).convert("RGBA"))
    found: dict[str, dict[str, Rgba]] = {name: {} for name in DRAWINGS}
    for finish, name, left, top in _places():
        found[name][finish] = sheet[top : top + TILE, left : left + TILE]
    return found


def sprite_box() -> SpriteBox:
    """The sprites as the data set's composer takes them."""
    return SpriteBox(sprites())


def _places() -> list[tuple[str, str, int, int]]:
    """(finish, object, left, top) of every tile."""
    numbered = enumerate((finish, name) for finish in FINISHES for name in DRAWINGS)
    return [(finish, name, i % COLUMNS * TILE, i // COLUMNS * TILE) for i, (finish, name) in numbered]


def write(drawn: dict[str, dict[str, Rgba]]) -> None:
    """Write the sheet."""
    rows = -(-len(DRAWINGS) * len(FINISHES) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * TILE, rows * TILE))
    for finish, name, left, top in _places():
        tile = Image.fromarray(drawn[name][finish]).resize((TILE, TILE), Image.Resampling.LANCZOS)
        sheet.paste(tile, (left, top))
    sheet.save(SHEET, quality=QUALITY, alpha_quality=90, method=6)


if __name__ == "__main__":
    cache, registry = artwork.default_cache(), artwork.configured_registry()
    archives = [artwork.obtain(package, cache, registry) for package in (artwork.SOLID, artwork.FLAT)]
    write(rasterised(artwork.drawings(*archives)))
