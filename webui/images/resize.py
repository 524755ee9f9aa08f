"""A picture brought to the size asked for, as AUTOMATIC1111 ``modules/images.py`` ``resize_image`` means it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.request import ResizeMode

Levels = NDArray[np.uint8]
"""A picture (H, W, 3) or a mask (H, W), uint8."""


Enlarge = Callable[[Levels, int, int], Levels]
"""A picture (H, W, 3) brought to a width and height, whatever its proportions."""


def lanczos(levels: Levels, width: int, height: int) -> Levels:
    """``levels`` with ``height`` rows and ``width`` columns, by the Lanczos filter."""
    return np.array(Image.fromarray(levels).resize((width, height), Image.Resampling.LANCZOS))


def resize(
    levels: Levels,
    width: int,
    height: int,
    mode: ResizeMode = ResizeMode.JUST_RESIZE,
    enlarge: Enlarge = lanczos,
) -> Levels:
    """``levels`` with ``height`` rows and ``width`` columns; pictures by ``enlarge``, masks by the Lanczos filter.

    Crop fills the size and cuts off what stands over; fill fits into the size and continues the outermost rows or
    columns.  In the latent mode pictures stay as they are (their latent is resized), masks are just resized.
    """
    if mode is ResizeMode.LATENT:
        if levels.ndim == 3:
            return levels
        mode = ResizeMode.JUST_RESIZE
    enlarge = enlarge if levels.ndim == 3 else lanczos
    if mode is ResizeMode.JUST_RESIZE:
        return enlarge(levels, width, height)
    return np.array(_fit(Image.fromarray(levels), width, height, enlarge, inside=mode is ResizeMode.FILL))


def _fit(image: Image.Image, width: int, height: int, enlarge: Enlarge, *, inside: bool) -> Image.Image:
    """The picture in its own proportions, centred: the largest inside of the size, or the smallest around it."""
    wider = width / height > image.width / image.height
    narrower = width / height < image.width / image.height
    fit_width = narrower if inside else wider
    fit_height = not narrower if inside else not wider
    scaled_width = width if fit_width else max(1, image.width * height // image.height)
    scaled_height = height if fit_height else max(1, image.height * width // image.width)
    scaled = Image.fromarray(enlarge(np.array(image), scaled_width, scaled_height))
    left, top = width // 2 - scaled_width // 2, height // 2 - scaled_height // 2
    result = Image.new(image.mode, (width, height))
    result.paste(scaled, (left, top))
    if inside and narrower:
        _continue_rows(result, scaled, top)
    elif inside and wider:
        _continue_columns(result, scaled, left)
    return result


# A box without height or width makes the filter extrapolate from the two outermost lines (1.125 and -0.125 of them),
# which is what AUTOMATIC1111's pictures show.


def _continue_rows(result: Image.Image, scaled: Image.Image, rows: int) -> None:
    if rows > 0:
        width, bottom = scaled.size
        result.paste(scaled.resize((width, rows), box=(0, 0, width, 0)), (0, 0))
        result.paste(scaled.resize((width, rows), box=(0, bottom, width, bottom)), (0, rows + bottom))


def _continue_columns(result: Image.Image, scaled: Image.Image, columns: int) -> None:
    if columns > 0:
        right, height = scaled.size
        result.paste(scaled.resize((columns, height), box=(0, 0, 0, height)), (0, 0))
        result.paste(scaled.resize((columns, height), box=(right, 0, right, height)), (columns + right, 0))
