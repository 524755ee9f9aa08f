"""Square sprites of the objects, as 3D, flat or line drawing, in their own or another colour.

A sprite is trimmed, so that its longer side fills the square: how large an object is drawn is exactly what was asked.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from webui.training.starter_data.artwork import ArtworkError
from webui.training.starter_data.vocabulary import COLOURS, SHAPES

Finish = Literal["3d", "flat", "line"]
Rgba = NDArray[np.uint8]
SPRITE_PX = 256
CACHED_SPRITES = 6000
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Luminance weights of ITU-R BT.601."""


def rasterised(drawings: Mapping[str, tuple[bytes, str]]) -> dict[str, dict[str, Rgba]]:
    """Object -> finish ("3d", "flat") -> trimmed sprite (256, 256, 4); ArtworkError without resvg."""
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise ArtworkError(
            'The flat drawings are SVG and need resvg, which is not installed; run: pip install "webui[starter-data]".'
        ) from error
    sprites: dict[str, dict[str, Rgba]] = {}
    for name, (webp, svg) in drawings.items():
        png = bytes(svg_to_bytes(svg_string=svg, width=SPRITE_PX, height=SPRITE_PX, skip_system_fonts=True))
        solid, flat = (Image.open(io.BytesIO(data)).convert("RGBA") for data in (webp, png))
        sprites[name] = {"3d": trimmed(solid), "flat": trimmed(flat)}
    return sprites


def trimmed(picture: Image.Image) -> Rgba:
    """The visible part (alpha above 20) centred in a square that it fills, (256, 256, 4)."""
    box = picture.getchannel("A").point(lambda alpha: 255 * (alpha > 20)).getbbox()
    if box is None:
        raise ArtworkError("One of the drawings is empty.")
    part = picture.crop(box)
    side = max(part.size)
    square = Image.new("RGBA", (side, side))
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    return np.asarray(square.resize((SPRITE_PX, SPRITE_PX), Image.Resampling.LANCZOS))


class SpriteBox:
    """The sprites of all objects, given out at any size; the latest sizes are kept."""

    def __init__(self, sprites: Mapping[str, Mapping[str, Rgba]]) -> None:
        """``sprites``: object -> finish -> (n, n, 4)."""
        self._sprites = {name: dict(finishes) for name, finishes in sprites.items()}
        self.full = lru_cache(maxsize=1024)(self._full)
        self.at = lru_cache(maxsize=CACHED_SPRITES)(self._at)

    def digest(self) -> str:
        """SHA-256 of all sprites in the order of their names: equal digests give equal pictures."""
        hashed = hashlib.sha256()
        for name in sorted(self._sprites):
            for finish in sorted(self._sprites[name]):
                hashed.update(f"{name}/{finish}\n".encode() + self._sprites[name][finish].tobytes())
        return hashed.hexdigest()

    def _full(self, name: str, finish: Finish, colour: str | None) -> Image.Image:
        """The sprite at its full size; shapes without a colour are gray."""
        if name in SHAPES:
            return shape(name, COLOURS[colour or "gray"], solid=finish == "3d")
        pixels = self._sprites[name]["3d" if finish == "3d" else "flat"]
        return Image.fromarray(recoloured(pixels, COLOURS[colour]) if colour else pixels)

    def _at(self, name: str, finish: Finish, colour: str | None, side: int, stroke: float) -> Image.Image:
        """The sprite, RGBA, ``side`` pixels wide and high; ``stroke`` is the width of a line drawing's lines in px."""
        full = self.full(name, finish, colour)
        if finish == "line":
            return line_drawing(full, side, stroke)
        return full.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)


def recoloured(pixels: Rgba, colour: tuple[int, int, int]) -> Rgba:
    """The sprite with its commonest hue exchanged for the colour; shading and other hues stay.

    Pixels within some 45 degrees of the commonest hue (weighted by saturation) are painted with the colour times their
    luminance relative to the mean of those pixels; what is lighter than the mean goes towards white.
    """
    values = pixels.astype(np.float32) / 255
    rgb, alpha = values[..., :3], values[..., 3]
    hue, saturation, value = _hue_saturation_value(rgb)
    counts, edges = np.histogram(hue, bins=36, range=(0, 360), weights=saturation * alpha * (value > 0.25))
    smooth = counts + np.roll(counts, 1) + np.roll(counts, -1)
    main = edges[int(smooth.argmax())] + 5
    away = np.abs((hue - main + 180) % 360 - 180)
    share = np.clip((55 - away) / 20, 0, 1) * np.clip((saturation - 0.15) / 0.15, 0, 1)
    luminance = rgb @ LUMA
    weight = share * alpha
    relative = (luminance / max(float((luminance * weight).sum() / max(weight.sum(), 1e-6)), 1e-6))[..., None]
    target = np.array(colour, np.float32) / 255
    lighter = target + (1 - target) * np.clip(0.7 * (relative - 1), 0, 1)
    painted = np.where(relative <= 1, target * relative, lighter)
    mixed = rgb + (painted - rgb) * share[..., None]
    return np.concatenate([np.clip(mixed * 255, 0, 255).astype(np.uint8), pixels[..., 3:]], axis=-1)


def _hue_saturation_value(rgb: NDArray[np.floating]) -> tuple[NDArray[np.floating], ...]:
    """Hue in degrees, saturation and value in [0, 1] of pixels (..., 3) in [0, 1]."""
    high, low = rgb.max(-1), rgb.min(-1)
    chroma = high - low + 1e-6
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    sixth = np.where(
        high == red,
        (green - blue) / chroma % 6,
        np.where(high == green, (blue - red) / chroma + 2, (red - green) / chroma + 4),
    )
    return sixth * 60, chroma / (high + 1e-6), high


def shape(name: str, colour: tuple[int, int, int], solid: bool) -> Image.Image:
    """A circle, square or triangle that fills the sprite; ``solid`` lights it from the upper left."""
    side = SPRITE_PX * 2
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    if name == "circle":
        pen.ellipse((0, 0, side - 1, side - 1), fill=255)
    elif name == "square":
        pen.rectangle((side // 14, side // 14, side - side // 14, side - side // 14), fill=255)
    else:
        pen.polygon([(side // 2, side // 16), (side - 1, side - side // 16), (0, side - side // 16)], fill=255)
    surface = np.broadcast_to(np.array(colour, np.float32), (SPRITE_PX, SPRITE_PX, 3))
    if solid:
        rows, columns = np.mgrid[:SPRITE_PX, :SPRITE_PX].astype(np.float32) / SPRITE_PX
        distance = np.hypot(columns - 0.36, rows - 0.32)[..., None]
        surface = surface * (1.18 - 0.6 * distance) + np.clip(70 - 260 * distance, 0, None)
    picture = Image.fromarray(np.clip(surface, 0, 255).astype(np.uint8))
    picture.putalpha(mask.resize((SPRITE_PX, SPRITE_PX), Image.Resampling.BOX))
    return picture


def line_drawing(sprite: Image.Image, side: int, stroke: float) -> Image.Image:
    """The sprite as dark outlines, ``stroke`` px wide, over white, (side, side) RGBA.

    Edges are the gradient magnitude of the colour channels and of alpha, found at twice the size.
    """
    scale = 2
    margin = 2 * scale
    inner = side * scale - 2 * margin
    small = sprite.resize((inner, inner), Image.Resampling.LANCZOS, reducing_gap=2.0)
    large = Image.new("RGBA", (side * scale, side * scale))
    large.paste(small, (margin, margin))
    alpha = large.getchannel("A")
    over_white = Image.new("RGB", large.size, "white")
    over_white.paste(large, mask=alpha)
    edges = np.zeros((side * scale, side * scale), np.float32)
    for channel in (*over_white.split(), alpha):
        values = np.asarray(channel.filter(ImageFilter.GaussianBlur(1.0)), np.float32) / 255
        down, across = np.gradient(values)
        np.maximum(edges, np.hypot(down, across), out=edges)
    ink = Image.fromarray((np.clip(edges * 9 - 0.4, 0, 1) * 255).astype(np.uint8))
    for _ in range(max(0, round(stroke * scale / 2 - 1))):
        ink = ink.filter(ImageFilter.MaxFilter(3))
    paper = ImageChops.invert(ink.point(lambda level: round(level * 0.9)))
    drawn = Image.merge("RGBA", (paper, paper, paper, ImageChops.lighter(alpha, ink)))
    return drawn.resize((side, side), Image.Resampling.BOX)
