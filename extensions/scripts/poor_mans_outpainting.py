"""Poor man's outpainting: the picture on a larger sheet, whose empty margin is inpainted tile by tile.

Sizes, tiles, masks, seeds and words of AUTOMATIC1111 1.10 (``scripts/poor_mans_outpainting.py``).  Unlike there a tile
sees, and keeps, what the tiles before it have painted: there they are painted apart and faded into each other, which
shows two pictures where they overlap.  So the last tile's picture is the finished one, and its recipe makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from webui.errors import RequestError, unknown_name
from webui.images.tiles import tiles_of
from webui.records import check_flag, check_whole
from webui.request import MAX_SEED, GenerationRequest, Mask, MaskedContent, Part
from webui.result import Pixels
from webui.scripts import Argument, Begun, Expansion, Script, option, padded

from .canvas import (
    DIRECTIONS,
    Flags,
    Growth,
    Sheet,
    as_mask,
    begun_with,
    chained,
    chosen_directions,
    growth,
    stage,
    widened,
)

NAME = "Poor man's outpainting"
CONTENTS = tuple(content.value for content in MaskedContent)
BLUR = 2
"""The mask is blurred by, and reaches into the picture by, so many times what the slider says."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """``pixels`` are added on each side, and tiles overlap by as many; ``content`` as of a mask; blur in pixels."""

    pixels: int = option(128, "Pixels to expand", low=8, high=256, step=8)
    mask_blur: int = option(4, "Mask blur", low=0, high=64, step=1, beside=True)
    content: str = option("fill", "Masked content", choices=lambda _: CONTENTS)
    left: bool = option(True, "Left")
    right: bool = option(True, "Right")
    up: bool = option(True, "Up")
    down: bool = option(True, "Down")

    def __post_init__(self) -> None:
        check_whole("Pixels to expand", self.pixels, 8, 256)
        check_whole("Mask blur", self.mask_blur, 0, 64)
        if self.content not in CONTENTS:
            raise unknown_name("masked content", self.content, CONTENTS)
        for direction in DIRECTIONS:
            check_flag(f"Outpainting {direction}", getattr(self, direction))


@dataclass(frozen=True)
class Tile:
    """A part of the sheet and those that were painted before it."""

    sheet: Sheet
    part: Part
    before: tuple[Part, ...]

    def unknown(self) -> Flags:
        """Where nothing was painted yet."""
        found = self.sheet.unknown()
        for part in self.before:
            _within(found, part)[...] = False
        return found


def expand(request: GenerationRequest, options: Options, size: tuple[int, int]) -> Expansion:
    """For each picture of the request one request a tile of its margin, row by row."""
    start = begun_with(request, NAME)
    wanted = Growth(*(getattr(options, direction) for direction in DIRECTIONS))
    tiles = _tiles(Sheet(size, growth(size, options.pixels, wanted)), request, options)
    mask = Mask(image=start.image, blur=options.mask_blur * BLUR, content=MaskedContent(options.content))
    chains = []
    for number in range(request.pictures):
        one = request.alone(number)
        assert one.seed is not None
        seeded = [replace(one, seed=(one.seed + step) % MAX_SEED) for step in range(len(tiles))]
        chains.append(
            [
                stage(painted, tile.sheet, tile.part, mask, partial(begun, tile=tile, options=options))
                for painted, tile in zip(seeded, tiles, strict=True)
            ]
        )
    return chained(chains)


def begun(pixels: Pixels, *, tile: Tile, options: Options) -> Begun:
    """The sheet so far, and what of the tile is painted anew."""
    unknown = tile.unknown()
    mask, latent = widened(unknown, BLUR * options.mask_blur), widened(unknown, options.mask_blur // 2)
    image = pixels if tile.before else tile.sheet.laid(pixels)
    return Begun(image=image, mask=as_mask(mask), latent=as_mask(latent))


def _tiles(sheet: Sheet, request: GenerationRequest, options: Options) -> list[Tile]:
    """The tiles of the sheet in which there is something to paint."""
    if options.pixels >= min(request.size.width, request.size.height):
        raise RequestError(
            f"The tiles overlap by the {options.pixels} pixels to expand; that must be less than width and height."
        )
    cut = tiles_of(sheet.width, sheet.height, request.size.width, request.size.height, options.pixels)
    tiles: list[Tile] = []
    for top in cut.tops:
        for left in cut.lefts:
            part = Part(left=left, top=top, width=cut.tile_width, height=cut.tile_height)
            tile = Tile(sheet, part, tuple(one.part for one in tiles))
            if _within(tile.unknown(), part).any():
                tiles.append(tile)
    return tiles


def _within(flags: Flags, part: Part) -> Flags:
    return flags[part.top : part.top + part.height, part.left : part.left + part.width]


def arguments(img2img: bool) -> Sequence[Argument]:
    """The positional arguments; the masked content by its number, or in words."""
    return (
        Argument(label="Pixels to expand", value=128, minimum=8, maximum=256, step=8),
        Argument(label="Mask blur", value=4, minimum=0, maximum=64, step=1),
        Argument(label="Masked content", value="fill", choices=CONTENTS),
        Argument(label="Outpainting direction", value=list(DIRECTIONS), choices=DIRECTIONS),
    )


def options_from(given: Sequence[Any], img2img: bool) -> Mapping[str, Any]:
    """The options that positional arguments mean.  Raises RequestError for a content that has no such number."""
    pixels, mask_blur, content, directions = padded(given, arguments(img2img))
    if isinstance(content, int) and not isinstance(content, bool):
        if not 0 <= content < len(CONTENTS):
            raise RequestError(f"There is no masked content number {content}; they are from 0 to {len(CONTENTS) - 1}.")
        content = CONTENTS[content]
    return {"pixels": pixels, "mask_blur": mask_blur, "content": content} | chosen_directions(directions)


SCRIPT = Script(
    name=NAME,
    options=Options,
    expand=expand,
    from_start=True,
    arguments=arguments,
    options_from=options_from,
)
