"""What of a case is right in its picture.  The judges judge themselves, too: on the true picture of the same facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from starter import seeing
from starter.cases import Case
from starter.recogniser import Recogniser

from webui.result import Pixels
from webui.training.starter_data.compose import picture
from webui.training.starter_data.scene import Facts
from webui.training.starter_data.vocabulary import COLOURS

SINGLE = ("backgrounds", "colours", "styles")
GROWTH = 1.5
"""How much longer "big" must be than "small" of the same object."""


@dataclass(frozen=True)
class Measure:
    """One line of the table; ``target`` is the share that must be right, None where a figure is only told."""

    name: str
    target: float | None


MEASURES = {
    "background": Measure("background colour", 0.85),
    "colour": Measure("object colour", 0.80),
    "object": Measure("object recognised, 3D and flat", 0.70),
    "object_styled": Measure("object recognised, pixel art and line art", 0.70),
    "style": Measure("style", 0.70),
    "place": Measure("place", 0.70),
    "size": Measure("size: big longer than small", 0.70),
    "count": Measure("count", 0.70),
    "pair": Measure("pair: both objects, each on its side", 0.70),
    "pair_object": Measure("pair: an object on its side", None),
    "scene": Measure("scene", 0.70),
    "scene_object": Measure("object recognised in a scene", None),
}


@dataclass(frozen=True)
class Answer:
    """Whether one measure is right in one case's picture."""

    measure: str
    case: Case
    right: bool


@dataclass(frozen=True)
class Judge:
    """The rules and the comparison with the drawings together."""

    recogniser: Recogniser

    def answers(self, cases: Sequence[Case], pictures: Sequence[Pixels]) -> list[Answer]:
        """Every answer about these pictures (128, 128, 3), one for each case."""
        found = []
        for case, pixels in zip(cases, pictures, strict=True):
            found += [Answer(measure, case, right) for measure, right in self._single(case, pixels)]
        return found + self._pairs(cases, pictures) + _sizes(cases, pictures)

    def true_picture(self, case: Case) -> Pixels:
        """The picture that the data set would show for the case's facts."""
        return np.array(picture(case.facts, Random(case.prompt), self.recogniser.sprites, seeing.SIDE))

    def _single(self, case: Case, pixels: Pixels) -> Iterator[tuple[str, bool]]:
        facts = case.facts
        if case.group in SINGLE:
            drawn = facts.style in ("pixel", "line")
            right = self.recogniser.object(pixels, facts.style) == facts.object
            yield "object_styled" if drawn else "object", right
            yield "style", self.recogniser.style(pixels, facts) == facts.style
            yield "background", seeing.background_colour(pixels) == facts.background_name
        if case.group == "colours":
            yield "colour", self.object_colour(facts, pixels) == facts.colour
        if case.group == "scenes":
            yield "scene", seeing.scene(pixels) == facts.background_name
            yield "scene_object", self.recogniser.object_in_scene(pixels) == facts.object
        if facts.place:
            yield "place", seeing.place(pixels) == facts.place
        if facts.count > 1:
            yield "count", seeing.objects_seen(pixels) == facts.count

    def object_colour(self, facts: Facts, pixels: Pixels) -> str:
        """The colour whose recolouring of this very drawing has the mean Lab colour nearest to the picture's."""
        found = seeing.body_colour(pixels)
        names = [name for name in COLOURS if name != facts.background_name]
        bodies = [seeing.body_colour(self.true_picture(Case("", replace(facts, colour=name)))) for name in names]
        return names[int(np.linalg.norm(np.stack(bodies) - found, axis=1).argmin())]

    def _pairs(self, cases: Sequence[Case], pictures: Sequence[Pixels]) -> list[Answer]:
        answers = []
        for case, pixels in zip(cases, pictures, strict=True):
            if case.group != "pairs":
                continue
            halves = _halves(pixels, case.facts.arrangement == "above")
            things = (case.facts.object, case.facts.second)
            right = [
                self.recogniser.object(half, case.facts.style) == thing
                for half, thing in zip(halves, things, strict=True)
            ]
            answers += [Answer("pair_object", case, each) for each in right] + [Answer("pair", case, all(right))]
        return answers


def _halves(pixels: Pixels, above: bool) -> tuple[Pixels, Pixels]:
    """The middle squares of the left and the right, or of the upper and the lower half, (64, 64, 3)."""
    half, quarter = seeing.SIDE // 2, seeing.SIDE // 4
    turned = pixels if not above else pixels.transpose(1, 0, 2)
    first, second = turned[quarter : quarter + half, :half], turned[quarter : quarter + half, half:]
    return (first, second) if not above else (first.transpose(1, 0, 2), second.transpose(1, 0, 2))


def _sizes(cases: Sequence[Case], pictures: Sequence[Pixels]) -> list[Answer]:
    """Small and big of one object stand next to each other in the list of cases."""
    sized = [(case, pixels) for case, pixels in zip(cases, pictures, strict=True) if case.group == "sizes"]
    twos = zip(sized[::2], sized[1::2], strict=True)
    return [
        Answer("size", case, 0 < GROWTH * seeing.extent(small) <= seeing.extent(big))
        for (case, small), (_, big) in twos
    ]


def background_errors(cases: Sequence[Case], pictures: Sequence[Pixels]) -> list[float]:
    """Mean ΔE of each border from the colour asked for, of single objects on a plain background."""
    asked = zip(cases, pictures, strict=True)
    return [seeing.background_error(pixels, c.facts.background_name) for c, pixels in asked if c.group in SINGLE]
