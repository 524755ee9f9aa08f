"""The command: write the data set of the embedded model, the bare sprites or the lessons, into a folder."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from webui.errors import WebUIError
from webui.training.starter_data import artwork, dataset, lessons
from webui.training.starter_data.sprites import rasterised


def arguments() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m webui.training.starter_data", description="Make the data set of the embedded model."
    )
    parser.add_argument("out", type=Path, nargs="?", help="folder for the pictures and metadata.jsonl")
    parser.add_argument("--count", type=int, default=30000, help="number of pictures")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=128, help="side of a picture, px")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--cache", type=Path, default=artwork.default_cache(), help="folder for the downloaded drawings"
    )
    parser.add_argument("--registry", default=artwork.configured_registry(), help="npm registry to download from")
    parser.add_argument("--sprites", type=Path, help="write each object alone, in both finishes, into this folder")
    parser.add_argument(
        "--lessons", type=Path, help="write the pictures that the LoRAs and the embedding beside the model learn"
    )
    return parser


def main(given: list[str] | None = None) -> int:
    """Do what the command line says; 0, or 1 after an error that is one sentence on stderr."""
    parser = arguments()
    chosen = parser.parse_args(given)
    if not (chosen.out or chosen.sprites or chosen.lessons):
        parser.error("name a folder for the data set, or --sprites FOLDER, or --lessons FOLDER")
    if chosen.count < 1 or chosen.workers < 1 or not 32 <= chosen.size <= 1024:
        parser.error("--count and --workers must be at least 1, --size from 32 to 1024")
    try:
        solid, flat = (
            artwork.obtain(package, chosen.cache, chosen.registry) for package in (artwork.SOLID, artwork.FLAT)
        )
        sprites = rasterised(artwork.drawings(solid, flat))
        if chosen.sprites:
            dataset.write_sprites(sprites, chosen.sprites, chosen.size)
        if chosen.lessons:
            newcomer = rasterised(artwork.drawings(solid, flat, wanted=lessons.NEWCOMER))
            lessons.write({**sprites, **newcomer}, chosen.lessons, chosen.seed, chosen.size)
        if chosen.out:
            dataset.write(sprites, dataset.Order(chosen.out, chosen.count, chosen.seed, chosen.size), chosen.workers)
    except WebUIError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
