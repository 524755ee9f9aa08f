"""Facts -> the sentence that belongs to the picture.

A caption states every fact except a plain background, and sometimes leaves out a 3D or flat style.
"""

from __future__ import annotations

from random import Random

from webui.training.starter_data.scene import Facts
from webui.training.starter_data.vocabulary import NUMBERS, PLACES, SCENES, SIZES, STYLES, SYNONYMS, article, plural

SYNONYM_SHARE = 0.1
STYLE_BEHIND, STYLE_IN_FRONT, TAGS = 0.5, 0.2, 0.12
"""Shares of the forms; the rest leaves the style out where it is 3D or flat."""


def caption(facts: Facts, random: Random) -> str:
    """A caption for the facts, in one of several forms."""
    style = random.choice(STYLES[facts.style])
    form = random.random()
    if STYLE_BEHIND + STYLE_IN_FRONT <= form < STYLE_BEHIND + STYLE_IN_FRONT + TAGS:
        return ", ".join(filter(None, (_subject(facts, random, with_article=False), _tag(facts, random), style)))
    sentence = _sentence(_subject(facts, random, with_article=True), facts, random)
    if STYLE_BEHIND <= form < STYLE_BEHIND + STYLE_IN_FRONT:
        return f"{style}, {sentence}" if style == "3d" or style.endswith(" style") else f"{style} of {sentence}"
    if form < STYLE_BEHIND or facts.style in ("pixel", "line"):
        return f"{sentence}, {style}"
    return sentence


def word(name: str, random: Random) -> str:
    """The name, or now and then a synonym of it."""
    return random.choice(SYNONYMS[name]) if name in SYNONYMS and random.random() < SYNONYM_SHARE else name


def _subject(facts: Facts, random: Random, with_article: bool) -> str:
    """ "a small red car", "two cats", "a cat and a dog", "a cat on the left"."""
    if facts.count > 1:
        return " ".join(filter(None, (NUMBERS[facts.count], _colour(facts.colour, random), _plural(facts, random))))
    phrases = []
    for name, colour in facts.things:
        size = random.choice(SIZES[facts.size]) if facts.size else ""
        label = " ".join(filter(None, (size, _colour(colour, random), word(name, random))))
        phrases.append(article(label) if with_article else label)
    if facts.place:
        return f"{phrases[0]} {PLACES[facts.place]}"
    if facts.arrangement == "above":
        return f"{phrases[0]} above {phrases[1]}" if random.random() < 0.7 else f"{phrases[1]} below {phrases[0]}"
    return random.choice((" and ", " and ", " next to ")).join(phrases)


def _plural(facts: Facts, random: Random) -> str:
    return plural(word(facts.object, random))


def _colour(colour: str | None, random: Random) -> str:
    return word(colour, random) if colour else ""


def _sentence(subject: str, facts: Facts, random: Random) -> str:
    if facts.background == "plain":
        return subject
    if facts.background == "scene":
        return f"{subject} {random.choice(SCENES[facts.background_name])}"
    background = _tag(facts, random)
    return f"{subject} on {article(background)}" if random.random() < 0.72 else f"{subject}, {background}"


def _tag(facts: Facts, random: Random) -> str:
    """The background in a word or two: "blue background", "red and blue gradient background", "beach"."""
    if facts.background == "plain":
        return ""
    if facts.background == "scene":
        return facts.background_name
    colours = " and ".join(word(colour, random) for colour in facts.background_colours)
    return f"{colours} gradient background" if facts.background == "gradient" else f"{colours} background"
