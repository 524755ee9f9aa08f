"""a painted picture -> the places of its regions: the hue of a pixel says which one it belongs to.

Region 1 is red, and each one after it as far from those before as can be: the hues of
hako-mikan/sd-webui-regional-prompter (README, mask regions), whose masks have a saturation and a value of a half.  Any
paint of about that hue will do: it belongs to the nearest one of the regions that the prompt has.  White, grey and
black belong to none.
"""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.errors import RequestError

MIN_SATURATION, MIN_VALUE = 0.25, 0.2
"""What is paler or darker is no paint."""
NAMES = ("red", "cyan", "lime", "violet", "orange", "sea green", "blue", "magenta")


def hue(region: int) -> float:
    """The hue, in degrees, of a region counted from 0: 0, 180, 90, 270, 45, 135, ..."""
    if region == 0:
        return 0.0
    level = region.bit_length() - 1
    return (2 * (region - (1 << level)) + 1) * 180 / (1 << level)


def colour(region: int) -> tuple[int, int, int]:
    """Its paint, (red, green, blue) from 0 to 255: that hue with a saturation and a value of a half."""
    red, green, blue = colorsys.hsv_to_rgb(hue(region) / 360, 0.5, 0.5)
    return round(red * 255), round(green * 255), round(blue * 255)


def shown(region: int) -> tuple[int, int, int]:
    """What the page paints it with: the same hue, bright enough to be told from its neighbours and to write on."""
    red, green, blue = colorsys.hsv_to_rgb(hue(region) / 360, 0.62, 0.93)
    return round(red * 255), round(green * 255), round(blue * 255)


def written(colour: tuple[int, int, int]) -> str:
    """A colour as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def name(region: int) -> str:
    """What people call its colour."""
    return NAMES[region] if region < len(NAMES) else f"the hue {hue(region):g}°"


def painted(pixels: NDArray[np.uint8], regions: int) -> NDArray[np.int64]:
    """The region of each pixel (H, W) of a picture (H, W, 3), -1 for none."""
    values = pixels.astype(np.float64) / 255
    high, low = values.max(axis=2), values.min(axis=2)
    spread = high - low
    is_paint = (high >= MIN_VALUE) & (spread >= MIN_SATURATION * np.maximum(high, 1e-9))
    red, green, blue = np.moveaxis(values, 2, 0)
    safe = np.where(spread > 0, spread, 1)
    sixths = np.select(
        [high == red, high == green], [(green - blue) / safe % 6, (blue - red) / safe + 2], (red - green) / safe + 4
    )
    distance = np.abs(sixths[..., None] * 60 - np.array([hue(region) for region in range(regions)]))
    nearest = np.minimum(distance, 360 - distance).argmin(axis=2)
    return np.where(is_paint, nearest, -1)


def masks(pixels: NDArray[np.uint8], regions: int, width: int, height: int) -> NDArray[np.float32]:
    """As ``grid.masks``, from a painted picture of any size.  Raises RequestError for a region that is not painted."""
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
    places = painted(np.asarray(resized), regions)
    found = np.stack([places == region for region in range(regions)])
    missing = [str(region + 1) for region in range(regions) if not found[region].any()]
    if missing:
        colours = ", ".join(f"{region + 1} {name(region)}" for region in range(regions))
        raise RequestError(
            f"Regional: nothing is painted for region {', '.join(missing)} of {regions}; their colours are {colours}."
        )
    return found.astype(np.float32)
