"""A picture cut into overlapping tiles and put together again, as AUTOMATIC1111 ``modules/images.py`` does it.

(``split_grid``, ``combine_grid``.)  For upscalers, which see one tile at a time, and for scripts that paint tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from webui.result import Pixels


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Where the tiles of a picture lie: left edges and top edges, rising, all tiles of one size.

    Neighbours overlap by ``overlap`` pixels or more; over its first ``overlap`` pixels a tile fades in.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    overlap: int
    lefts: tuple[int, ...]
    tops: tuple[int, ...]

    def cut(self, pixels: Pixels) -> list[Pixels]:
        """The tiles of a picture (H, W, 3), row by row."""
        return [
            pixels[top : top + self.tile_height, left : left + self.tile_width]
            for top in self.tops
            for left in self.lefts
        ]

    def enlarged(self, factor: int) -> Tiles:
        """The same tiles of a picture ``factor`` times as large."""
        return Tiles(
            width=self.width * factor,
            height=self.height * factor,
            tile_width=self.tile_width * factor,
            tile_height=self.tile_height * factor,
            overlap=self.overlap * factor,
            lefts=tuple(left * factor for left in self.lefts),
            tops=tuple(top * factor for top in self.tops),
        )

    def join(self, tiles: Sequence[Pixels]) -> Pixels:
        """The picture of its tiles, each (tile_height, tile_width, 3) uint8, row by row."""
        ramp = (np.arange(self.overlap, dtype=np.float32) * 255 / max(self.overlap, 1)).astype(np.uint8)
        across = Image.fromarray(np.tile(ramp[None, :], (self.tile_height, 1)))
        down = Image.fromarray(np.tile(ramp[:, None], (1, self.width)))
        picture = Image.new("RGB", (self.width, self.height))
        columns = len(self.lefts)
        for number, top in enumerate(self.tops):
            row = Image.new("RGB", (self.width, self.tile_height))
            for left, tile in zip(self.lefts, tiles[number * columns : (number + 1) * columns], strict=True):
                _lay(row, Image.fromarray(tile), (left, 0), across if left else None, (self.overlap, 0))
            _lay(picture, row, (0, top), down if top else None, (0, self.overlap))
        return np.array(picture)


def tiles_of(width: int, height: int, tile_width: int, tile_height: int, overlap: int) -> Tiles:
    """The fewest tiles that cover a picture, spread evenly; a tile is never larger than the picture.

    (AUTOMATIC1111 adds black to a picture that is smaller than a tile, which darkens what the network makes of its
    edges.)
    """
    tile_width, tile_height = min(tile_width, width), min(tile_height, height)
    return Tiles(
        width=width,
        height=height,
        tile_width=tile_width,
        tile_height=tile_height,
        overlap=overlap,
        lefts=_edges(width, tile_width, overlap),
        tops=_edges(height, tile_height, overlap),
    )


def _edges(side: int, tile: int, overlap: int) -> tuple[int, ...]:
    if side <= tile:
        return (0,)
    count = math.ceil((side - overlap) / (tile - overlap))
    apart = (side - tile) / (count - 1)
    return tuple(min(int(number * apart), side - tile) for number in range(count))


def _lay(
    ground: Image.Image, tile: Image.Image, place: tuple[int, int], fade: Image.Image | None, faded: tuple[int, int]
) -> None:
    """Lay a tile onto what is there; with ``fade`` its first columns or rows (``faded``) come in gradually."""
    if fade is None or not any(faded):
        ground.paste(tile, place)
        return
    (left, top), (across, down) = place, faded
    ground.paste(tile.crop((0, 0, across or tile.width, down or tile.height)), place, mask=fade)
    ground.paste(tile.crop((across, down, tile.width, tile.height)), (left + across, top + down))
