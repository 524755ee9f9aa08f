"""values -> colours.  A scale of dark to light that keeps its order in grey and for colour-blind eyes.  No torch."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Stops = tuple[tuple[float, int, int, int], ...]

INFERNO: Stops = (
    (0.0, 6, 4, 22), (0.25, 87, 16, 110), (0.5, 188, 55, 84), (0.75, 249, 142, 9), (1.0, 252, 250, 164),
)  # fmt: skip
"""Dark violet over red and orange to pale yellow: position from 0 to 1, red, green, blue."""


def coloured(values: NDArray[np.floating], stops: Stops) -> NDArray[np.uint8]:
    """The colours (..., 3) uint8 of values from 0 to 1; what lies beyond takes the end's."""
    places = [stop[0] for stop in stops]
    channels = [np.interp(values, places, [stop[channel] for stop in stops]) for channel in (1, 2, 3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def overlay_png(values: NDArray[np.floating]) -> bytes:
    """Values from 0 to 1 (h, w) as a PNG to lie over a picture: low ones let it through, darkened; high ones glow."""
    levels = np.clip(values, 0, 1)
    colour = coloured(levels, INFERNO)
    alpha = (255 * np.clip(0.62 + 0.26 * levels, 0, 1)).astype(np.uint8)[..., None]
    stream = BytesIO()
    Image.fromarray(np.concatenate([colour, alpha], axis=-1), "RGBA").save(stream, "PNG", optimize=True)
    return stream.getvalue()
