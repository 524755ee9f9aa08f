"""Names the object and the style of a picture by comparing it with the drawings themselves; nothing is trained.

On a plain background what stands before it is cut out and brought to one size, and compared with every object of the
vocabulary drawn on the same background, cut out the same way: outline and lightness, brought to mean 0 and deviation 1,
so that colour does not tell the object.  Before a scene, edges are searched for in several sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray
from starter import seeing

from webui.result import Pixels
from webui.training.starter_data.compose import picture
from webui.training.starter_data.scene import Facts
from webui.training.starter_data.sprites import SpriteBox
from webui.training.starter_data.vocabulary import OBJECTS, RECOLOURABLE, SHAPES, STYLES

CUT = 40
"""Side in px of a cut-out."""
EDGES = 64
SCENE_EXTENTS = (0.52, 0.57, 0.62, 0.67, 0.72, 0.77)
CELL = seeing.SIDE // 32
BLOCKY = 0.34
"""Share of the steps between neighbouring pixels that falls on the grid of pixel art: 0.20 to 0.28 measured without a
grid, 1 on true pixel art, 0.50 when it is blurred by 0.8 px, as a VAE may do."""
FINISHED = ("3d", "flat")
COLOURED = ("black", "yellow", "blue")
"""A dark, a light and a middle one: only lightness is compared, so these stand for all twelve."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Recogniser:
    """Knows the drawings; cut-outs of them are kept for each background and style."""

    sprites: SpriteBox

    def object(self, pixels: Pixels, style: str) -> str:
        """The object on a plain background that the picture shows most likely; "" where it shows nothing."""
        cut = cut_out(pixels)
        if cut is None:
            return ""
        behind, best, score = seeing.background_colour(pixels), "", -np.inf
        for known in dict.fromkeys((*FINISHED, style)):
            names, cuts = self.known(behind, known)
            scores = cuts @ cut
            if scores.max() > score:
                best, score = names[int(scores.argmax())], scores.max()
        return best

    def style(self, pixels: Pixels, facts: Facts) -> str:
        """The style: pixel art by its grid, the others by the nearest drawing of the very object, colours included."""
        if blockiness(pixels) > BLOCKY:
            return "pixel"
        true = {style: self.drawn(_in_style(facts, style)) for style in STYLES if style != "pixel"}
        seen = _window(pixels)
        return min(true, key=lambda style: float(np.linalg.norm(_window(true[style]) - seen, axis=-1).mean()))

    def object_in_scene(self, pixels: Pixels) -> str:
        """The object before a scene whose edges fit best."""
        edges = _edges(cv2.resize(pixels, (EDGES, EDGES), interpolation=cv2.INTER_AREA))
        padded = cv2.copyMakeBorder(edges, 4, 4, 4, 4, cv2.BORDER_CONSTANT)
        scores = [
            (cv2.matchTemplate(padded, known, cv2.TM_CCOEFF_NORMED).max(), name) for name, known in self._outlines
        ]
        return max(scores)[1]

    def drawn(self, facts: Facts) -> Pixels:
        """A true picture of the facts."""
        return np.array(picture(facts, Random(0), self.sprites, seeing.SIDE))

    @lru_cache(maxsize=128)  # noqa: B019  one recogniser lives as long as the program
    def known(self, behind: str, style: str) -> tuple[tuple[str, ...], Floats]:
        """Names and cut-outs (n, 2 * 40 * 40) of every object in some of the colours it can have on this background."""
        names, cuts = [], []
        for name in OBJECTS:
            for colour in _colours(name, behind, style):
                cut = cut_out(self.drawn(Facts(name, colour, "solid", behind, style)))
                if cut is not None:
                    names.append(name)
                    cuts.append(cut)
        return tuple(names), np.stack(cuts)

    @cached_property
    def _outlines(self) -> list[tuple[str, Floats]]:
        """Names and edge maps of all drawings, in the sizes that the data set draws before scenes."""
        return [(name, edges) for name in OBJECTS for edges in self._edge_maps(name)]

    def _edge_maps(self, name: str) -> Iterator[Floats]:
        for extent in SCENE_EXTENTS:
            side = 2 * round(extent * EDGES / 2)
            for finish in ("3d", "flat"):
                sprite = np.asarray(self.sprites.at(name, finish, None, side, 0.0), np.float32)
                padded = cv2.copyMakeBorder(sprite, 2, 2, 2, 2, cv2.BORDER_CONSTANT)
                rgb, alpha = padded[..., :3], padded[..., 3:] / 255
                yield _edges((rgb * alpha + 127 * (1 - alpha)).astype(np.uint8), alpha[..., 0])


def _colours(name: str, behind: str, style: str) -> tuple[str | None, ...]:
    named = tuple(colour for colour in COLOURED if colour != behind)
    if style == "line" or name not in RECOLOURABLE:
        return (None,)
    return named if name in SHAPES else (None, *named)


def _in_style(facts: Facts, style: str) -> Facts:
    """The same in another style; a shape keeps a colour that can be seen, line art has none."""
    colour = None if style == "line" else facts.colour
    if facts.object in SHAPES and style != "line" and colour is None:
        colour = "gray" if facts.background_name != "gray" else "blue"
    return replace(facts, style=style, colour=colour)


def cut_out(pixels: Pixels) -> Floats | None:
    """What stands before the background as one vector (2 * 40 * 40): outline and lightness; None if nothing does."""
    mask = seeing.foreground(pixels)
    if mask.sum() < 0.004 * mask.size:
        return None
    square = _square(mask)
    outline = _resized(mask.astype(np.float32), square)
    light = _resized(seeing.lab(pixels)[..., 0], square)
    inside = outline > 0.5
    if not inside.any():
        return None
    light = np.where(inside, (light - light[inside].mean()) / (light[inside].std() + 3), 0).astype(np.float32)
    parts = [cv2.GaussianBlur(part, (0, 0), 1.0) for part in (outline - outline.mean(), light)]
    return np.concatenate([part.ravel() / (np.linalg.norm(part) + 1e-6) for part in parts])


def _square(mask: seeing.Mask) -> tuple[float, float, float]:
    """Centre x, y and side in px of the square around what stands before the background; 1 % may stick out."""
    rows, columns = np.nonzero(mask)
    top, low = np.percentile(rows, (0.5, 99.5))
    left, right = np.percentile(columns, (0.5, 99.5))
    return (left + right) / 2, (top + low) / 2, 1.08 * max(right - left, low - top) + 2


def _resized(values: Floats, square: tuple[float, float, float]) -> Floats:
    """The part of (n, n) or (n, n, 3) in a square, at the size of a cut-out."""
    x, y, side = square
    scale = CUT / side
    if scale < 1:
        values = cv2.GaussianBlur(values, (0, 0), 0.45 / scale)
    move = np.array([[scale, 0, CUT / 2 - x * scale], [0, scale, CUT / 2 - y * scale]])
    return np.asarray(cv2.warpAffine(values, move, (CUT, CUT), borderMode=cv2.BORDER_REPLICATE), np.float32)


def _window(pixels: Pixels) -> Floats:
    """Lab of what stands before the background, (40, 40, 3)."""
    mask = seeing.foreground(pixels)
    return _resized(seeing.lab(pixels), _square(mask) if mask.any() else (64.0, 64.0, 128.0))


def blockiness(pixels: Pixels) -> float:
    """Share of the differences between neighbouring pixels that lies on the lines of a 32 by 32 grid."""
    values = seeing.lab(pixels)
    total, on_grid = 1e-6, 0.0
    for axis in (0, 1):
        steps = np.linalg.norm(np.diff(values, axis=axis), axis=-1).sum(1 - axis)
        total += float(steps.sum())
        on_grid += float(steps[CELL - 1 :: CELL].sum())
    return on_grid / total


def _edges(pixels: Pixels, alpha: Floats | None = None) -> Floats:
    """Strength of the edges, a strong one no more than four times a weak one, (n, n)."""
    values = [*seeing.lab(pixels).transpose(2, 0, 1)] + ([alpha * 60] if alpha is not None else [])
    strength = np.zeros(pixels.shape[:2], np.float32)
    for channel in values:
        down, across = np.gradient(cv2.GaussianBlur(channel, (0, 0), 0.7))
        strength = np.maximum(strength, np.hypot(down, across))
    return np.asarray(cv2.GaussianBlur(np.minimum(strength, 12.0).astype(np.float32), (0, 0), 0.8), np.float32)
