"""The drawings of the character that the LoRA ``zorb`` teaches, so that measuring needs no download.

    python benchmarks/starter/character.py        makes ``zorb.webp`` anew from the pinned packages

The flat and the 3D drawing side by side, as ``sprite_sheet.py`` keeps those of the vocabulary.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from starter.sprite_sheet import FINISHES, QUALITY, TILE

from webui.training.starter_data import artwork
from webui.training.starter_data.lessons import NEWCOMER, TRIGGER
from webui.training.starter_data.sprites import Rgba, rasterised

FILE = Path(__file__).with_name("zorb.webp")


def character() -> dict[str, Rgba]:
    """Finish ("flat", "3d") -> sprite (112, 112, 4)."""
    pair = np.asarray(Image.open(FILE).convert("RGBA"))
    return {finish: pair[:, i * TILE : (i + 1) * TILE] for i, finish in enumerate(FINISHES)}


def write() -> None:
    """Write the file."""
    cache, registry = artwork.default_cache(), artwork.configured_registry()
    solid, flat = (artwork.obtain(package, cache, registry) for package in (artwork.SOLID, artwork.FLAT))
    drawn = rasterised(artwork.drawings(solid, flat, wanted=NEWCOMER))[TRIGGER]
    pair = Image.new("RGBA", (TILE * len(FINISHES), TILE))
    for i, finish in enumerate(FINISHES):
        pair.paste(Image.fromarray(drawn[finish]).resize((TILE, TILE), Image.Resampling.LANCZOS), (i * TILE, 0))
    pair.save(FILE, quality=QUALITY, alpha_quality=90, method=6)


if __name__ == "__main__":
    write()
