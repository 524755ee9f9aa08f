"""The colours of one picture given to another, so that repeated img2img does not drift: "colour correction".

As AUTOMATIC1111 ``modules/processing.py`` (setup_color_correction, apply_color_correction): the histograms of L, a
and b are matched, then the picture's own luminosity is put back.  To the same 8-bit values as scikit-image's
``exposure/histogram_matching.py`` and blendmodes' ``blend.py`` (luminosity).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from webui.result import Pixels

Levels = NDArray[np.uint8]
Colours = NDArray[np.float64]
LUMINOSITY = (0.299, 0.587, 0.114)


def with_colours_of(pixels: Pixels, model: Pixels) -> Pixels:
    """The picture (H, W, 3) with the colours of ``model``, which may have another size."""
    import cv2

    lab, wanted = (cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2LAB) for picture in (pixels, model))
    matched = np.dstack([matched_levels(lab[..., channel], wanted[..., channel]) for channel in range(3)])
    return with_luminosity_of(cv2.cvtColor(matched, cv2.COLOR_LAB2RGB).astype(np.uint8), pixels)


def matched_levels(levels: Levels, model: Levels) -> Levels:
    """The levels (H, W) changed one by one so that they are spread like those of ``model``; fractions are cut off."""
    counts, wanted = (np.bincount(channel.ravel(), minlength=256) for channel in (levels, model))
    present = np.flatnonzero(wanted)
    shares = np.cumsum(counts) / levels.size, np.cumsum(wanted[present]) / model.size
    table = np.interp(shares[0], shares[1], present)
    return table.astype(np.uint8)[levels]


def with_luminosity_of(pixels: Pixels, other: Pixels) -> Pixels:
    """The picture with the luminosity of another of its size, its saturation lowered where a colour would not exist.

    The blend mode "luminosity" (W3C, Compositing and Blending Level 1, section 13, SetLum and ClipColor).
    """
    colours, wanted = pixels / 255, other / 255
    colours = colours + (_luminosity(wanted) - _luminosity(colours))
    level, low, high = _luminosity(colours), colours.min(axis=2, keepdims=True), colours.max(axis=2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        colours = np.where(low < 0, level + (colours - level) * level / (level - low), colours)
        colours = np.where(high > 1, level + (colours - level) * (1 - level) / (high - level), colours)
    result: Pixels = (colours.clip(0, 1) * 255).astype(np.uint8)
    return result


def _luminosity(colours: Colours) -> Colours:
    """(H, W, 1)."""
    red, green, blue = (colours[..., channel : channel + 1] * LUMINOSITY[channel] for channel in range(3))
    weighted: Colours = red + green + blue
    return weighted
