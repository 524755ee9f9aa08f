"""Control pictures that need no weights: edges, lines, tiles, colours, light.

Each is a pure function of a picture (H, W, 3) uint8 and its options by name, and gives a picture of the same kind, of
the same size unless it says otherwise.  Names, formulas and ranges are those of Mikubill/sd-webui-controlnet
(``scripts/preprocessor``, ``annotator``), so that its pictures' texts and its clients mean the same here; where a
formula is ours, the function says so.  Canny comes with the program (``webui.preprocessors.canny``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from webui.errors import RequestError, unknown_name
from webui.preprocessors import Preprocessor, Slider

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from webui.result import Pixels

CELL = 64
"""Pixels a side of one cell of the colour grid."""
SHUFFLE_GRID = 256
"""Pixels between two of the random places that a shuffled picture is bent to."""
LINE_SIGMA = 6.0
FAINT_LINE = 8
"""Darker than its surroundings by no more than this, in levels, is no line."""


def unchanged(pixels: Pixels, **_: float) -> Pixels:
    """The picture itself: for networks that read pictures, and for those who bring a control picture.

    What its sliders say is read where the picture is used.
    """
    return pixels


def invert(pixels: Pixels) -> Pixels:
    """Black lines on white as white lines on black, which is what line networks were trained with."""
    return 255 - pixels


def blur_gaussian(pixels: Pixels, sigma: float) -> Pixels:
    """The picture under a Gaussian of deviation ``sigma`` pixels."""
    import cv2

    return _picture(cv2.GaussianBlur(pixels, (0, 0), sigma))


def lineart_standard(pixels: Pixels) -> Pixels:
    """White where the picture is darker than its surroundings: black lines on white as lines on black.

    How much darker, in the channel where it is least, is measured against the median of all lines, which becomes grey.
    """
    import cv2
    import numpy as np

    levels = pixels.astype(np.float32)
    darker = (cv2.GaussianBlur(levels, (0, 0), LINE_SIGMA) - levels).min(axis=2).clip(0, 255)
    lines = darker[darker > FAINT_LINE]
    typical = max(16.0, float(np.median(lines))) if lines.size else 16.0
    return grey((darker / typical * 127).clip(0, 255))


def scribble_xdog(pixels: Pixels, threshold: float) -> Pixels:
    """Thick white strokes where two Gaussians differ: extended differences of Gaussians, Winnemoeller et al. 2012.

    Upstream doubles the difference in 8 bits, so that its strongest strokes have holes; here they have none.
    """
    import cv2
    import numpy as np

    levels = pixels.astype(np.float32)
    narrow, wide = (cv2.GaussianBlur(levels, (0, 0), sigma) for sigma in (0.5, 5.0))
    dog = (255 - (wide - narrow).min(axis=2)).clip(0, 255).astype(np.uint8)
    return grey(np.where(2 * (255 - dog.astype(np.int32)) > threshold, 255, 0))


def threshold(pixels: Pixels, level: float) -> Pixels:
    """White where every channel is above ``level``, else black."""
    import numpy as np

    return grey(np.where(pixels.min(axis=2) > level, 255, 0))


def tile_resample(pixels: Pixels, rate: float) -> Pixels:
    """The picture ``rate`` times smaller, by the mean of areas; as it is for rates below 1.1."""
    import cv2

    if rate < 1.1:
        return pixels
    height, width = (max(1, int(side / rate)) for side in pixels.shape[:2])
    return _picture(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))


def colour_grid(pixels: Pixels) -> Pixels:
    """Squares of one colour, 64 pixels a side.

    Upstream squeezes every picture into a square first; here the cells stay square, which for square pictures is the
    same.
    """
    import cv2

    height, width = pixels.shape[:2]
    cells = (max(1, width // CELL), max(1, height // CELL))
    small = cv2.resize(pixels, cells, interpolation=cv2.INTER_CUBIC)
    return _picture(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST))


def colour_palette(pixels: Pixels, colours: float) -> Pixels:
    """The picture in so many colours, by median cut (Heckbert 1982).  Not in sd-webui-controlnet."""
    import numpy as np
    from PIL import Image

    reduced = Image.fromarray(pixels).quantize(int(colours), Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return np.array(reduced.convert("RGB"))


def shuffle(pixels: Pixels, seed: float) -> Pixels:
    """The picture's colours in other places: each pixel is fetched from a place that smooth noise names.

    Upstream draws the noise anew each time; here it comes from ``seed``, so that a picture can be made again.
    """
    import cv2
    import numpy as np

    height, width = pixels.shape[:2]
    generator = np.random.default_rng(int(seed))
    x, y = (_smooth_noise(height, width, generator) * (side - 1) for side in (width, height))
    return _picture(cv2.remap(pixels, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR))


def _smooth_noise(height: int, width: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """A field (height, width) from 0 to 1 without anything finer than the grid."""
    import cv2

    step = SHUFFLE_GRID
    noise = generator.uniform(size=(height // step + 2, width // step + 2))
    field = cv2.resize(noise, (width + 2 * step, height + 2 * step), interpolation=cv2.INTER_CUBIC)
    field = field[step : step + height, step : step + width]
    field = field - field.min()
    scaled: NDArray[np.float64] = field / (field.max() or 1.0)
    return scaled


def recolor_luminance(pixels: Pixels, gamma: float) -> Pixels:
    """The lightness L of CIE Lab as grey, to the power ``gamma``; red and blue change places first, as upstream."""
    import cv2

    return _to_power(cv2.cvtColor(pixels, cv2.COLOR_BGR2LAB)[:, :, 0], gamma)


def recolor_intensity(pixels: Pixels, gamma: float) -> Pixels:
    """The brightest channel (V of HSV) as grey, to the power ``gamma``."""
    return _to_power(pixels.max(axis=2), gamma)


def depth_luminance(pixels: Pixels, sigma: float) -> Pixels:
    """Light is near: luminance (ITU-R BT.601) under a Gaussian of ``sigma`` pixels, stretched from black to white.

    No estimate of depth, but a picture to draw in: a ball that is shaded from the front comes out as a ball.  Not in
    sd-webui-controlnet.
    """
    import cv2
    import numpy as np

    light = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    light = cv2.GaussianBlur(light, (0, 0), sigma) if sigma > 0 else light
    span = float(light.max() - light.min())
    return grey((light - light.min()) * (255 / span)) if span > 0 else grey(light)


def _to_power(levels: NDArray[np.uint8], gamma: float) -> Pixels:
    import numpy as np

    return grey(((levels.astype(np.float32) / 255) ** gamma * 255).clip(0, 255))


def grey(levels: NDArray[Any]) -> Pixels:
    """Levels (H, W) as a picture (H, W, 3)."""
    import numpy as np

    return np.repeat(levels.astype(np.uint8)[:, :, None], 3, axis=2)


def _picture(levels: Any) -> Pixels:
    import numpy as np

    return np.ascontiguousarray(levels, dtype=np.uint8)


def checked(name: str, sliders: tuple[Slider, ...], options: Mapping[str, Any]) -> dict[str, float]:
    """Every slider's value by its key.  Raises RequestError for an unknown option, or a number beyond its range."""
    values = {slider.key: slider.default for slider in sliders}
    ranges = {slider.key: slider for slider in sliders}
    for key, value in options.items():
        if key not in ranges:
            raise unknown_name(f"option of {name}", key, ranges)
        low, high = ranges[key].low, ranges[key].high
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise RequestError(f"{name}'s {key} is {value!r}; it must be a number from {low:g} to {high:g}.")
        values[key] = value
    return values


def slider_values(preprocessor: Preprocessor, *numbers: float) -> dict[str, float]:
    """The numbers as a preprocessor's options, slider by slider; one beyond its range, or left out, is the default."""
    values = {slider.key: slider.default for slider in preprocessor.sliders}
    for slider, number in zip(preprocessor.sliders, numbers, strict=False):
        if slider.low <= number <= slider.high:
            values[slider.key] = number
    return values


def named(preprocessors: Iterable[Preprocessor]) -> dict[str, str]:
    """The name of each preprocessor by everything it is called, in small letters."""
    return {name.casefold(): one.name for one in preprocessors for name in (one.name, *one.aliases)}


def _made(name: str, function: Callable[..., Pixels], *sliders: Slider, **more: Any) -> Preprocessor:
    def run(pixels: Pixels, options: Mapping[str, Any]) -> Pixels:
        return function(pixels, **checked(name, sliders, options))

    return Preprocessor(name=name, run=run, sliders=sliders, **more)


LINES = ("Canny", "Lineart", "Scribble", "Sketch", "MLSD")
TILE = ("Tile", "Blur")
DEPTH = Slider(key="sigma", label="Sigma", default=2, low=0, high=64, step=0.1)
COLOURS = Slider(key="colours", label="Colours", default=8, low=2, high=64)
FIDELITY = Slider(key="fidelity", label="Style fidelity (in Balanced mode)", default=0.5, low=0, high=1, step=0.01)
GAMMA = Slider(key="gamma", label="Gamma correction", default=1, low=0.1, high=2, step=0.001)
LEVEL = Slider(key="level", label="Binarization threshold", default=127, low=0, high=255)
RATE = Slider(key="rate", label="Down sampling rate", default=1, low=1, high=8, step=0.01)
SEED = Slider(key="seed", label="Seed", default=0, low=0, high=2**32 - 1)
SHARPNESS = Slider(key="sharpness", label="Sharpness", default=1, low=0, high=2, step=0.01)
SIGMA = Slider(key="sigma", label="Sigma", default=9, low=0.01, high=64, step=0.01)
VARIATION = Slider(key="variation", label="Variation", default=8, low=3, high=32)
XDOG = Slider(key="threshold", label="XDoG threshold", default=32, low=1, high=64)
CLIP_NAMES = ("ip-adapter_clip_sd15", "ip-adapter_clip_h")


def preprocessors() -> list[Preprocessor]:
    """All of them, in the order in which they are listed."""
    return [
        _made("none", unchanged),
        _made("invert (from white bg & black line)", invert, aliases=("invert",), tags=LINES),
        _made("blur_gaussian", blur_gaussian, SIGMA, scaled=True, tags=TILE),
        _made("color_palette", colour_palette, COLOURS, scaled=True, tags=("T2I-Adapter", "Recolor")),
        _made("depth_luminance", depth_luminance, DEPTH, scaled=True, tags=("Depth",)),
        _made("inpaint_only", unchanged, reads_mask=True, tags=("Inpaint",)),
        _made("inpaint_global_harmonious", unchanged, aliases=("inpaint",), reads_mask=True, tags=("Inpaint",)),
        _made("ip-adapter-auto", unchanged, aliases=CLIP_NAMES, tags=("IP-Adapter",)),
        _made(
            "lineart_standard (from white bg & black line)",
            lineart_standard,
            aliases=("lineart_standard",),
            scaled=True,
            tags=("Lineart",),
        ),
        _made("recolor_intensity", recolor_intensity, GAMMA, tags=("Recolor",)),
        _made("recolor_luminance", recolor_luminance, GAMMA, tags=("Recolor",)),
        _made("reference_only", unchanged, FIDELITY, tags=("Reference",), needs_model=False),
        _made("scribble_xdog", scribble_xdog, XDOG, scaled=True, tags=("Scribble", "Sketch")),
        _made("shuffle", shuffle, SEED, scaled=True, tags=("Shuffle",)),
        _made("t2ia_color_grid", colour_grid, aliases=("color",), scaled=True, tags=("T2I-Adapter",)),
        _made("threshold", threshold, LEVEL, scaled=True),
        _made("tile_colorfix", unchanged, VARIATION, tags=TILE),
        _made("tile_colorfix+sharp", unchanged, VARIATION, SHARPNESS, tags=TILE),
        _made("tile_resample", tile_resample, RATE, tags=TILE),
    ]
