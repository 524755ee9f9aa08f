"""Outpainting mk2: the picture grows one side after the other, into noise that has the picture's own spectrum.

Sizes, masks, seeds and words of AUTOMATIC1111 1.10 (``scripts/outpainting_mk_2.py``).  Every side is inpainting of its
own that begins with the picture of the side before it, so that the last one's recipe makes the finished picture.
Unlike there a batch of several counts its seeds, and a side of any length is painted to its very edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from webui.errors import RequestError
from webui.records import check_flag, check_range, check_whole
from webui.request import GenerationRequest, Mask, Part
from webui.result import Pixels
from webui.scripts import Argument, Begun, Expansion, Script, option, padded

from .canvas import (
    DIRECTIONS,
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
from .spectrum import filled

NAME = "Outpainting mk2"
BLUR = 4
"""The mask is blurred by so many times what the slider says."""
FALL_OFF = "Fall-off exponent (lower=higher detail)"


@dataclass(frozen=True, kw_only=True)
class Options:
    """``pixels`` are added on each side; ``mask_blur`` in pixels; the noise as in :func:`filled`."""

    pixels: int = option(128, "Pixels to expand", low=8, high=256, step=8)
    mask_blur: int = option(8, "Mask blur", low=0, high=64, step=1, beside=True)
    fall_off: float = option(1.0, FALL_OFF, low=0, high=4, step=0.01)
    color_variation: float = option(0.05, "Color variation", low=0, high=1, step=0.01, beside=True)
    left: bool = option(True, "Left")
    right: bool = option(True, "Right")
    up: bool = option(True, "Up")
    down: bool = option(True, "Down")

    def __post_init__(self) -> None:
        check_whole("Pixels to expand", self.pixels, 8, 256)
        check_whole("Mask blur", self.mask_blur, 0, 64)
        check_range("Fall-off exponent", self.fall_off, 0, 4)
        check_range("Color variation", self.color_variation, 0, 1)
        for direction in DIRECTIONS:
            check_flag(f"Outpainting {direction}", getattr(self, direction))


def expand(request: GenerationRequest, options: Options, size: tuple[int, int]) -> Expansion:
    """For each picture of the request one request a side: left, right, up, down."""
    start = begun_with(request, NAME)
    wanted = Growth(*(getattr(options, direction) for direction in DIRECTIONS))
    sheets = _sheets(size, growth(size, options.pixels, wanted))
    mask = Mask(image=start.image, blur=options.mask_blur * BLUR)
    chains = []
    for number in range(request.pictures):
        one = request.alone(number)
        chains.append(
            [
                stage(one, sheet, _part(sheet, request), mask, partial(begun, sheet=sheet, options=options))
                for sheet in sheets
            ]
        )
    return chained(chains)


def begun(pixels: Pixels, *, sheet: Sheet, options: Options) -> Begun:
    """The picture on its larger sheet with noise beside it, and what of that is painted anew."""
    unknown = sheet.unknown()
    noised = widened(unknown, options.mask_blur)
    if noised.all():
        raise RequestError("The mask's blur reaches through the whole picture; choose a smaller one.")
    image = filled(sheet.laid(pixels), noised, options.fall_off, options.color_variation)
    return Begun(image=image, mask=as_mask(noised), latent=as_mask(widened(unknown, 2 * options.mask_blur)))


def _sheets(size: tuple[int, int], grows: Growth) -> list[Sheet]:
    """One sheet for every side that grows, each around the one before it."""
    sheets = []
    for direction, pixels in grows._asdict().items():
        if pixels:
            sheets.append(Sheet(size, Growth(**{direction: pixels})))
            size = (sheets[-1].width, sheets[-1].height)
    return sheets


def _part(sheet: Sheet, request: GenerationRequest) -> Part:
    """What the network sees: the side that grows over its whole length, as far inwards as the request is large.

    Raises RequestError when it would see nothing of the picture.
    """
    left, right, up, down = sheet.grows
    width = min(request.size.width, sheet.width) if left or right else sheet.width
    height = min(request.size.height, sheet.height) if up or down else sheet.height
    if width <= left + right or height <= up + down:
        name, side = ("width", width) if left or right else ("height", height)
        raise RequestError(
            f"The {name} of {side} pixels shows nothing of the picture beside the {max(sheet.grows)} new ones; "
            f"choose a larger {name}, or fewer pixels to expand."
        )
    return Part(
        left=sheet.width - width if right else 0, top=sheet.height - height if down else 0, width=width, height=height
    )


def arguments(img2img: bool) -> Sequence[Argument]:
    """The positional arguments; the first is a note on upstream's page."""
    return (
        Argument(label=""),
        Argument(label="Pixels to expand", value=128, minimum=8, maximum=256, step=8),
        Argument(label="Mask blur", value=8, minimum=0, maximum=64, step=1),
        Argument(label="Outpainting direction", value=list(DIRECTIONS), choices=DIRECTIONS),
        Argument(label=FALL_OFF, value=1.0, minimum=0.0, maximum=4.0, step=0.01),
        Argument(label="Color variation", value=0.05, minimum=0.0, maximum=1.0, step=0.01),
    )


def options_from(given: Sequence[Any], img2img: bool) -> Mapping[str, Any]:
    """The options that positional arguments mean."""
    _, pixels, mask_blur, directions, fall_off, color_variation = padded(given, arguments(img2img))
    named = {"pixels": pixels, "mask_blur": mask_blur, "fall_off": fall_off, "color_variation": color_variation}
    return named | chosen_directions(directions)


SCRIPT = Script(
    name=NAME,
    options=Options,
    expand=expand,
    from_start=True,
    arguments=arguments,
    options_from=options_from,
)
