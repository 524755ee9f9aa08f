"""What one picture shows, as a record: drawn at random, never a held-out combination, and kept beside the picture.

The shares are made for teaching obedience to a small model: most pictures are a single object on a background whose
colour the caption states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from webui.training.starter_data.vocabulary import (
    COLOUR_NAMES,
    DRAWINGS,
    PLACES,
    RECOLOURABLE,
    SCENES,
    SHAPES,
    held_out_backgrounds,
    held_out_colours,
    held_out_counts,
    held_out_pairs,
)

Choice = TypeVar("Choice")

KINDS = {"single": 0.64, "place": 0.09, "size": 0.06, "count": 0.09, "pair": 0.12}
STYLE_SHARES = {"3d": 0.45, "flat": 0.30, "pixel": 0.13, "line": 0.12}
BACKGROUNDS = {"solid": 0.63, "scene": 0.205, "gradient": 0.055, "plain": 0.11}
LINE_BACKGROUNDS = {"solid": 0.5, "plain": 0.5}
COUNT_SHARES = {2: 0.4, 3: 0.35, 4: 0.25}
SHAPE_SHARE = 0.08
RECOLOURED_SHARE = 0.5

HELD_OUT_BACKGROUNDS = held_out_backgrounds()
HELD_OUT_COLOURS = held_out_colours()
HELD_OUT_COUNTS = held_out_counts()
HELD_OUT_PAIRS = held_out_pairs()


@dataclass(frozen=True)
class Facts:
    """The ground truth of one picture; names are those of the vocabulary, whatever synonym the caption uses.

    ``background`` is "solid", "plain" (white, and the caption does not say so), "gradient" or "scene";
    ``background_name`` the colour, "top and bottom" colours, or the scene.  A colour of None is the object's own.
    ``arrangement`` of a pair: "beside" (the first on the left) or "above" (the first on top).
    """

    object: str
    colour: str | None
    background: str
    background_name: str
    style: str
    place: str | None = None
    size: str | None = None
    count: int = 1
    second: str | None = None
    second_colour: str | None = None
    arrangement: str | None = None

    @property
    def things(self) -> tuple[tuple[str, str | None], ...]:
        """(object, colour) of the first and, if there is one, the second object."""
        first = (self.object, self.colour)
        return (first,) if self.second is None else (first, (self.second, self.second_colour))

    @property
    def background_colours(self) -> tuple[str, ...]:
        """The named colours of the background; none for a scene."""
        return () if self.background == "scene" else tuple(self.background_name.split(" and "))


def drawn_facts(random: Random) -> Facts:
    """Facts of a picture at random, by the shares above; only names are drawn again when a combination is held out."""
    style = _choice(random, STYLE_SHARES)
    kind = _choice(random, KINDS)
    background = _choice(random, LINE_BACKGROUNDS if style == "line" else BACKGROUNDS)
    while True:
        facts = _named(random, style, kind, background)
        if allowed(facts):
            return facts


def allowed(facts: Facts) -> bool:
    """Whether a picture may show this: no held-out combination, no object in its background's colour."""
    behind = facts.background_colours
    return (
        facts.second != facts.object
        and frozenset((facts.object, facts.second)) not in HELD_OUT_PAIRS
        and (facts.object, facts.count) not in HELD_OUT_COUNTS
        and not HELD_OUT_COLOURS.intersection(facts.things)
        and all(colour not in behind for _, colour in facts.things)
        and not any((name, colour) in HELD_OUT_BACKGROUNDS for name, _ in facts.things for colour in behind)
    )


def _named(random: Random, style: str, kind: str, background: str) -> Facts:
    name, colour = _thing(random, style)
    second, second_colour = _thing(random, style) if kind == "pair" else (None, None)
    return Facts(
        object=name,
        colour=colour,
        background=background,
        background_name=_background_name(random, background),
        style=style,
        place=random.choice(tuple(PLACES)) if kind == "place" else None,
        size=random.choice(("small", "big")) if kind == "size" else None,
        count=_choice(random, COUNT_SHARES) if kind == "count" else 1,
        second=second,
        second_colour=second_colour,
        arrangement=("above" if random.random() < 0.25 else "beside") if second else None,
    )


def _choice(random: Random, shares: Mapping[Choice, float]) -> Choice:
    return random.choices(tuple(shares), tuple(shares.values()))[0]


def _thing(random: Random, style: str) -> tuple[str, str | None]:
    """An object and its colour; line art shows no colours, shapes have no colour of their own."""
    name = random.choice(SHAPES if random.random() < SHAPE_SHARE else tuple(DRAWINGS))
    coloured = name in SHAPES or (name in RECOLOURABLE and random.random() < RECOLOURED_SHARE)
    return name, random.choice(COLOUR_NAMES) if coloured and style != "line" else None


def _background_name(random: Random, background: str) -> str:
    if background == "plain":
        return "white"
    if background == "scene":
        return random.choice(tuple(SCENES))
    return " and ".join(random.sample(COLOUR_NAMES, 1 if background == "solid" else 2))
