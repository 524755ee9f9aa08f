"""SD upscale: the start image enlarged, painted anew tile by tile with overlapping tiles, and put together.

Seeds, tiles and words of AUTOMATIC1111 1.10 (``scripts/sd_upscale.py``): a tile has the size of the request, tile ``i``
of repetition ``n`` the seed ``seed + n + i``.  A picture that becomes no larger than a tile is refused, where upstream
adds black.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from webui.errors import RequestError
from webui.images.tiles import tiles_of
from webui.records import check_range, check_text, check_whole, shown
from webui.request import MAX_SEED, GenerationRequest
from webui.scripts import Argument, Enlarged, Expansion, Page, Script, Sheet, option, padded

NO_UPSCALER = "None"
MULTIPLE = 8


@dataclass(frozen=True, kw_only=True)
class Options:
    """``overlap`` in pixels; ``upscaler`` by name, "None" for the picture as it is; ``scale`` is its factor."""

    overlap: int = option(64, "Tile overlap", low=0, high=256, step=16)
    scale: float = option(2.0, "Scale Factor", low=1, high=4, step=0.05, beside=True)
    upscaler: str = option(NO_UPSCALER, "Upscaler", entries="img2img_upscaler")

    def __post_init__(self) -> None:
        check_whole("Tile overlap", self.overlap, 0, 1024)
        check_range("Scale factor", self.scale, 1, 8)
        check_text("The upscaler", self.upscaler)


def expand(request: GenerationRequest, options: Options, size: tuple[int, int]) -> Expansion:
    """One request for every tile of the enlarged picture, ``batch_count`` times."""
    if request.start is None or request.seed is None:
        raise RequestError("SD upscale begins with a picture; choose a start image.")
    if request.start.mask is not None:
        raise RequestError("SD upscale paints the whole picture anew; take the mask away.")
    width, height = enlarged_size(size, options)
    tile = request.size
    if width < tile.width or height < tile.height:
        raise RequestError(
            f"The enlarged picture has {width}x{height} pixels, fewer than a tile of {tile.width}x{tile.height}; "
            "choose a smaller width and height, or a larger scale factor."
        )
    if options.overlap >= min(tile.width, tile.height):
        raise RequestError(f"The tiles overlap by {options.overlap} pixels; that must be less than width and height.")
    tiles = tiles_of(width, height, tile.width, tile.height, options.overlap)
    count = len(tiles.lefts) * len(tiles.tops)
    one = replace(request, script=None, batch_size=1, batch_count=1)
    requests = tuple(
        replace(one, seed=(request.seed + repetition + number) % MAX_SEED)
        for repetition in range(request.batch_count)
        for number in range(count)
    )
    pairs = {"SD upscale overlap": str(options.overlap), "SD upscale upscaler": options.upscaler}
    sheets = tuple(
        Sheet(
            pages=(Page(cells=tuple(range(first, first + count)), columns=len(tiles.lefts), tiles=tiles),), pairs=pairs
        )
        for first in range(0, len(requests), count)
    )
    start = Enlarged(upscaler=options.upscaler, scale=options.scale, tiles=tiles)
    return Expansion(requests=requests, sheets=sheets, start=start, with_pictures=False)


def enlarged_size(size: tuple[int, int], options: Options) -> tuple[int, int]:
    """The size that the upscaler makes of (width, height): sides rounded down to multiples of 8."""
    if options.upscaler.casefold() == NO_UPSCALER.casefold():
        return size
    width, height = (max(MULTIPLE, int(side * options.scale // MULTIPLE * MULTIPLE)) for side in size)
    return width, height


def arguments(img2img: bool) -> Sequence[Argument]:
    """The positional arguments; the first is a note on upstream's page."""
    return (
        Argument(label=""),
        Argument(label="Tile overlap", value=64, minimum=0, maximum=256, step=16),
        Argument(label="Upscaler", value=NO_UPSCALER),
        Argument(label="Scale Factor", value=2.0, minimum=1.0, maximum=4.0, step=0.05),
    )


def options_from(given: Sequence[Any], img2img: bool) -> Mapping[str, Any]:
    """The options that positional arguments mean."""
    _, overlap, upscaler, scale = padded(given, arguments(img2img))
    if not isinstance(upscaler, str):
        raise RequestError(f"The upscaler is {shown(upscaler)}; name it, as /sdapi/v1/upscalers lists it.")
    return {"overlap": overlap, "upscaler": upscaler, "scale": scale}


SCRIPT = Script(
    name="SD upscale",
    options=Options,
    expand=expand,
    from_start=True,
    arguments=arguments,
    options_from=options_from,
)
