"""What the model is asked: prompts that no training picture could have had as a caption, with what must be seen.

Every group but ``colours`` puts objects on backgrounds that they never had (``held_out_backgrounds``); ``colours``,
``counts`` and ``pairs`` use the combinations held out for them; ``scenes`` have nothing held out, and are asked in
colours held out where the object takes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from webui.training.starter_data.scene import Facts
from webui.training.starter_data.vocabulary import (
    COLOUR_NAMES,
    NUMBERS,
    OBJECTS,
    PLACES,
    RECOLOURABLE,
    SCENES,
    SHAPES,
    SIZES,
    STYLES,
    article,
    held_out_backgrounds,
    held_out_colours,
    held_out_counts,
    held_out_pairs,
    plural,
)

FIRST_EDITION_OBJECTS = 20
FINISHED = ("3d", "flat")
QUICK = 60


@dataclass(frozen=True)
class Case:
    """One prompt: the group it belongs to, and the facts that its picture must show."""

    group: str
    facts: Facts

    @property
    def prompt(self) -> str:
        """The plain sentence for the facts, in the words of the training captions."""
        return prompt(self.facts)


def prompt(facts: Facts) -> str:
    """The facts in one fixed form, the style behind.

    >>> prompt(Facts("cat", "red", "solid", "blue", "3d", place="left"))
    'a red cat on the left on a blue background, 3d style'
    """
    return f"{_subject(facts)} {_behind(facts)}, {STYLES[facts.style][0]}"


def _subject(facts: Facts) -> str:
    if facts.count > 1:
        return " ".join(filter(None, (NUMBERS[facts.count], facts.colour, plural(facts.object))))
    size = SIZES[facts.size][0] if facts.size else None
    phrases = [article(" ".join(filter(None, (size, colour, name)))) for name, colour in facts.things]
    place = f" {PLACES[facts.place]}" if facts.place else ""
    return (" above " if facts.arrangement == "above" else " and ").join(phrases) + place


def _behind(facts: Facts) -> str:
    if facts.background == "scene":
        return SCENES[facts.background_name][0]
    return f"on {article(facts.background_name)} background"


def all_cases() -> list[Case]:
    """Every case of the second edition, group by group."""
    return [Case(group, facts) for group, made in GROUPS.items() for facts in made()]


def quick_cases() -> list[Case]:
    """Some sixty of them, spread evenly over each group; sizes stay in twos."""
    cases = all_cases()
    return [case for group in GROUPS for case in _thinned([case for case in cases if case.group == group], len(cases))]


def _thinned(cases: Sequence[Case], total: int) -> list[Case]:
    block = 2 if cases[0].group == "sizes" else 1
    wanted = max(4, round(QUICK * len(cases) / total)) // block
    blocks = len(cases) // block
    starts = [(i * blocks // wanted + i % 4) % blocks * block for i in range(wanted)]  # i % 4: not one place only
    return [case for start in starts for case in cases[start : start + block]]


def first_edition_cases() -> list[Case]:
    """The 104 cases that the first edition was judged by: twenty objects, each held-out combination in two styles."""
    things = OBJECTS[:FIRST_EDITION_OBJECTS]
    behind = [_on(name, colour, style) for name in things for colour in _backgrounds(name) for style in FINISHED]
    coloured = [facts for facts in _colours() if facts.object in things]
    return [Case("backgrounds", facts) for facts in behind] + [Case("colours", facts) for facts in coloured]


def _backgrounds(name: str) -> list[str]:
    """The two held-out background colours of an object, in the order of the rule."""
    held_out = {colour for other, colour in held_out_backgrounds() if other == name}
    first = (5 * OBJECTS.index(name) + 2) % 12
    return sorted(held_out, key=lambda colour: (COLOUR_NAMES.index(colour) - first) % 12)


def _on(name: str, background: str, style: str) -> Facts:
    return Facts(name, own_colour(name, (background,), style), "solid", background, style)


def own_colour(name: str, behind: Sequence[str], style: str) -> str | None:
    """The colour that must be named: a shape's, which is never the background's or a held-out one."""
    if name not in SHAPES or style == "line":
        return None
    free = [c for c in COLOUR_NAMES if c not in behind and (name, c) not in held_out_colours()]
    return free[5 * OBJECTS.index(name) % len(free)]


def _both_backgrounds() -> Iterator[Facts]:
    for i, name in enumerate(OBJECTS):
        for j, colour in enumerate(_backgrounds(name)):
            yield _on(name, colour, FINISHED[(i + j) % 2])


def _colours() -> Iterator[Facts]:
    colour_of = dict(held_out_colours())
    for name in RECOLOURABLE:
        background = "white" if colour_of[name] not in ("white", "gray") else "blue"
        for style in FINISHED:
            yield Facts(name, colour_of[name], "solid", background, style)


def _styles() -> Iterator[Facts]:
    for i, name in enumerate(OBJECTS):
        yield _on(name, _backgrounds(name)[i // 2 % 2], ("pixel", "line")[i % 2])


def _places() -> Iterator[Facts]:
    for i, name in enumerate(OBJECTS[::2]):
        facts = _on(name, _backgrounds(name)[i // 2 % 2], FINISHED[i // 4 % 2])
        yield replace(facts, place=tuple(PLACES)[i % 4])


def _sizes() -> Iterator[Facts]:
    for i, name in enumerate(OBJECTS[1::4]):
        for size in ("small", "big"):
            yield replace(_on(name, _backgrounds(name)[i // 2 % 2], FINISHED[i % 2]), size=size)


def _counts() -> Iterator[Facts]:
    for name, count in sorted(held_out_counts(), key=lambda pair: OBJECTS.index(pair[0])):
        for background, style in zip(_backgrounds(name) * 2, (*FINISHED, *reversed(FINISHED)), strict=True):
            yield replace(_on(name, background, style), count=count)


def _pairs() -> Iterator[Facts]:
    for i, name in enumerate(OBJECTS):
        second = OBJECTS[(i + 13) % len(OBJECTS)]
        assert frozenset((name, second)) in held_out_pairs()
        style, background = FINISHED[i // 2 % 2], _backgrounds(name)[i // 4 % 2]
        yield replace(
            _on(name, background, style),
            second=second,
            second_colour=own_colour(second, (background,), style),
            arrangement=("beside", "beside", "beside", "above")[i % 4],
        )


def _scenes() -> Iterator[Facts]:
    colour_of = dict(held_out_colours())
    for i, scene in enumerate(SCENES):
        for j in range(5):
            name = OBJECTS[(17 * (5 * i + j)) % len(OBJECTS)]
            yield Facts(name, colour_of.get(name), "scene", scene, FINISHED[j % 2])


GROUPS: dict[str, Callable[[], Iterator[Facts]]] = {
    "backgrounds": _both_backgrounds,
    "colours": _colours,
    "styles": _styles,
    "places": _places,
    "sizes": _sizes,
    "counts": _counts,
    "pairs": _pairs,
    "scenes": _scenes,
}
"""Group -> what its prompts ask for."""
