"""Facts -> pixels: a background, sprites on it, and for pixel art a coarse grid over both.

Everything is placed in parts of the side, so the same facts and random numbers give the same picture at every size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from webui.training.starter_data.captions import caption
from webui.training.starter_data.scene import Facts, drawn_facts
from webui.training.starter_data.sprites import Finish, SpriteBox
from webui.training.starter_data.vocabulary import COLOURS

PIXEL_ART_CELLS = 32
JITTER = 6
"""How far a background's channels may be from its named colour, of 255."""
STROKE = 0.014
"""Width of a line drawing's lines, in parts of the side."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Example:
    """One picture of the data set: pixels, caption, ground truth."""

    picture: Image.Image
    caption: str
    facts: Facts


@dataclass(frozen=True)
class Placed:
    """An object where it stands: centre and longer side, in parts of the picture's side."""

    name: str
    colour: str | None
    x: float
    y: float
    extent: float


def example(seed: int, index: int, sprites: SpriteBox, side: int) -> Example:
    """Picture ``index`` of the data set with this seed, ``side`` pixels wide and high."""
    random = Random(f"{seed}:{index}")
    facts = drawn_facts(random)
    text = caption(facts, random)
    return Example(picture(facts, random, sprites, side), text, facts)


def picture(facts: Facts, random: Random, sprites: SpriteBox, side: int) -> Image.Image:
    """What the facts say, RGB (side, side)."""
    canvas = background(facts, random, side)
    finish: Finish = "line" if facts.style == "line" else "3d" if facts.style == "3d" else "flat"
    for placed in layout(facts, random):
        extent = max(8, 2 * round(placed.extent * side / 2))
        sprite = sprites.at(placed.name, finish, placed.colour, extent, STROKE * side)
        canvas.paste(sprite, (round(placed.x * side - extent / 2), round(placed.y * side - extent / 2)), sprite)
    if facts.style == "pixel":
        coarse = canvas.resize((PIXEL_ART_CELLS, PIXEL_ART_CELLS), Image.Resampling.BOX)
        canvas = coarse.resize((side, side), Image.Resampling.NEAREST)
    return canvas


def layout(facts: Facts, random: Random) -> list[Placed]:
    """Where the objects stand.  Sprites of a count or pair do not touch."""

    def near(value: float, by: float) -> float:
        return value + random.uniform(-by, by)

    def first(x: float, y: float, extent: float) -> Placed:
        return Placed(facts.object, facts.colour, x, y, extent)

    middle = 0.54 if facts.background == "scene" else 0.5
    if facts.second is not None:
        extent = random.uniform(0.39, 0.435)
        ends = ((0.265, middle), (0.735, middle)) if facts.arrangement == "beside" else ((0.5, 0.265), (0.5, 0.735))
        return [
            Placed(name, colour, near(x, 0.008), near(y, 0.008), extent)
            for (name, colour), (x, y) in zip(facts.things, ends, strict=True)
        ]
    if facts.count > 1:
        spots, extent = random.choice(ARRANGEMENTS[facts.count])
        extent *= random.uniform(0.93, 1.0)
        return [first(near(x, 0.008), near(y, 0.008), extent) for x, y in spots]
    if facts.place:
        x, y = {"left": (0.25, 0.5), "right": (0.75, 0.5), "top": (0.5, 0.25), "bottom": (0.5, 0.75)}[facts.place]
        return [first(near(x, 0.02), near(y, 0.02), random.uniform(0.38, 0.46))]
    if facts.size == "small":
        return [first(near(0.5, 0.06), near(middle, 0.06), random.uniform(0.26, 0.34))]
    if facts.size == "big":
        return [first(near(0.5, 0.01), near(0.5, 0.01), random.uniform(0.86, 0.95))]
    extent = random.uniform(0.52, 0.80)
    free = 0.3 * (1 - extent)
    return [first(near(0.5, free), min(near(middle, free), 0.98 - extent / 2), extent)]


ARRANGEMENTS: dict[int, tuple[tuple[tuple[tuple[float, float], ...], float], ...]] = {
    2: ((((0.265, 0.5), (0.735, 0.5)), 0.435),),
    3: (
        (((0.185, 0.5), (0.5, 0.5), (0.815, 0.5)), 0.28),
        (((0.5, 0.27), (0.27, 0.73), (0.73, 0.73)), 0.42),
    ),
    4: ((((0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)), 0.42),),
}
"""Count -> the ways to arrange it: centres, and the largest extent at which nothing touches."""


def background(facts: Facts, random: Random, side: int) -> Image.Image:
    """The background alone, RGB (side, side)."""
    if facts.background == "scene":
        return scenery(facts.background_name, random, side)
    shades = [_near(COLOURS[name], random) for name in facts.background_colours]
    if facts.background == "gradient":
        return _vertical(shades[0], shades[1], side).copy()
    return Image.new("RGB", (side, side), shades[0])


def _near(colour: Colour, random: Random) -> Colour:
    red, green, blue = (min(255, max(0, channel + random.randint(-JITTER, JITTER))) for channel in colour)
    return red, green, blue


@lru_cache(maxsize=64)
def _vertical(top: Colour, bottom: Colour, side: int) -> Image.Image:
    """From one colour above to another below."""
    share = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    rows = np.array(top, np.float32) * (1 - share) + np.array(bottom, np.float32) * share
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows, (side, side, 3))).round().astype(np.uint8))


class Brush:
    """Draws a scene in parts of the side, at twice the size, so that edges come out smooth."""

    def __init__(self, top: Colour, bottom: Colour, random: Random, side: int) -> None:
        """A sky from one colour to another."""
        self.side = 2 * side
        self.random = random
        self.picture = _vertical(top, bottom, self.side).copy()
        self.pen = ImageDraw.Draw(self.picture)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A filled circle."""
        self.pen.ellipse(self._box(x, y, radius), fill=colour)

    def ring(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A bubble."""
        self.pen.ellipse(self._box(x, y, radius), outline=colour, width=max(1, self.side // 128))

    def scattered(self, count: int, radii: tuple[float, ...], colour: Colour, below: float, ring: bool = False) -> None:
        """Discs or rings at random places in the upper ``below`` of the picture."""
        for _ in range(count):
            x, y, radius = self.random.random(), below * self.random.random(), self.random.choice(radii)
            (self.ring if ring else self.disc)(x, y, radius, colour)

    def ground(self, top: float, height: float, colour: Colour) -> None:
        """Everything below a wavy line at ``top``."""
        waves, phase = self.random.uniform(3, 6), self.random.uniform(0, math.tau)
        steps = 24
        line = [
            (i / steps * self.side, (top + height * math.sin(waves * i / steps + phase)) * self.side)
            for i in range(steps + 1)
        ]
        self.pen.polygon([(0, self.side), *line, (self.side, self.side)], fill=colour)

    def band(self, top: float, colour: Colour) -> None:
        """Everything below a straight line."""
        self.pen.rectangle((0, top * self.side, self.side, self.side), fill=colour)

    def glow(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """A soft light, added to what is there."""
        small = Image.new("RGB", (64, 64))
        box = ((x - width) * 64, (y - height) * 64, (x + width) * 64, (y + height) * 64)
        ImageDraw.Draw(small).ellipse(box, fill=colour)
        light = small.filter(ImageFilter.GaussianBlur(8)).resize(self.picture.size, Image.Resampling.BILINEAR)
        added = np.asarray(self.picture, np.int16) + np.asarray(light, np.int16)
        self.picture = Image.fromarray(np.minimum(added, 255).astype(np.uint8))
        self.pen = ImageDraw.Draw(self.picture)

    def finished(self) -> Image.Image:
        """The scene at its real size."""
        return self.picture.reduce(2)

    def _box(self, x: float, y: float, radius: float) -> tuple[float, float, float, float]:
        centre_x, centre_y, reach = x * self.side, y * self.side, radius * self.side
        return centre_x - reach, centre_y - reach, centre_x + reach, centre_y + reach


def scenery(name: str, random: Random, side: int) -> Image.Image:
    """One of the scenes of the vocabulary, RGB (side, side)."""
    top, bottom, paint = SCENERY[name]
    brush = Brush(top, bottom, random, side)
    paint(brush, random.uniform(0.60, 0.70))
    return brush.finished()


def _grass(brush: Brush, horizon: float) -> None:
    brush.ground(horizon - 0.04, 0.03, (90, 180, 80))
    brush.ground(horizon + 0.06, 0.024, (60, 150, 60))


def _desert(brush: Brush, horizon: float) -> None:
    brush.ground(horizon - 0.04, 0.04, (235, 190, 110))
    brush.ground(horizon + 0.08, 0.03, (220, 165, 85))


def _night(brush: Brush, horizon: float) -> None:
    brush.scattered(26, (0.006, 0.008, 0.012), (255, 250, 220), below=0.75)
    brush.ground(0.86, 0.024, (22, 30, 46))


def _space(brush: Brush, horizon: float) -> None:
    brush.glow(brush.random.random(), brush.random.random(), 0.28, 0.2, (90, 30, 130))
    brush.scattered(40, (0.006, 0.008, 0.012), (255, 250, 220), below=1.0)


def _beach(brush: Brush, horizon: float) -> None:
    brush.band(horizon - 0.1, (40, 140, 200))
    brush.ground(horizon + 0.055, 0.024, (240, 215, 150))


def _snow(brush: Brush, horizon: float) -> None:
    brush.ground(horizon, 0.03, (245, 248, 252))
    brush.scattered(24, (0.012, 0.016, 0.02), (255, 255, 255), below=1.0)


def _underwater(brush: Brush, horizon: float) -> None:
    brush.scattered(9, (0.016, 0.024, 0.032), (190, 235, 245), below=0.9, ring=True)
    brush.ground(0.88, 0.024, (200, 180, 120))


def _sunset(brush: Brush, horizon: float) -> None:
    brush.disc(brush.random.uniform(0.15, 0.85), horizon - 0.09, 0.1, (255, 225, 120))
    brush.band(horizon - 0.05, (70, 50, 110))


SCENERY: dict[str, tuple[Colour, Colour, Callable[[Brush, float], None]]] = {
    "grass": ((110, 190, 245), (200, 230, 250), _grass),
    "desert": ((120, 195, 235), (250, 225, 180), _desert),
    "night": ((10, 14, 50), (40, 50, 110), _night),
    "space": ((14, 8, 28), (14, 8, 28), _space),
    "beach": ((110, 190, 245), (200, 230, 250), _beach),
    "snow": ((150, 190, 225), (205, 225, 240), _snow),
    "underwater": ((70, 190, 220), (10, 60, 130), _underwater),
    "sunset": ((90, 50, 140), (255, 150, 70), _sunset),
}
"""Scene -> colours of the sky above and below, and what is painted over it."""
