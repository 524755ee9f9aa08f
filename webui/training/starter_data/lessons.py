"""Three small lessons for the model that has learnt the data set: a style, a character and a colour new to it.

    blueprint      a style: light lines on squared blue paper; for a LoRA
    zorb           a character, on plain backgrounds only; for a LoRA, with ``zorb-class`` for prior preservation
    mint           a background colour that has no name in the vocabulary; for an embedding

Each leaves out what its measure asks for: ``blueprint`` and ``mint`` every fourth object, ``zorb`` all scenes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.training.starter_data.artwork import ArtworkError
from webui.training.starter_data.captions import caption
from webui.training.starter_data.compose import STROKE, Colour, Example, layout, picture
from webui.training.starter_data.dataset import Order, Sprites, about
from webui.training.starter_data.scene import Facts, allowed
from webui.training.starter_data.sprites import Finish, SpriteBox
from webui.training.starter_data.vocabulary import COLOUR_NAMES, DRAWINGS, NUMBERS, PLACES, Drawing, article, plural

RULES = 1
"""Version of the rules that turn (seed, index) into a picture; to be raised when any of them changes."""

PAPER: Colour = (22, 62, 132)
LINES: Colour = (226, 244, 255)
SQUARES = 8
GRID, WASH = 0.16, 0.10
"""How far the paper's squares, and an object's inside, are on the way from the paper's colour to that of the lines."""

TRIGGER = "zorb"
NEWCOMER = {TRIGGER: Drawing("1f47d", "alien")}
"""The character: a drawing that is not in the vocabulary, under a word that means nothing."""

ANIMALS = (*tuple(DRAWINGS)[:7], *tuple(DRAWINGS)[20:32])

MINT: Colour = (162, 236, 196)
WORD = "mint"

TAUGHT = tuple(name for i, name in enumerate(DRAWINGS) if i % 4 != 3)
UNTAUGHT = tuple(name for i, name in enumerate(DRAWINGS) if i % 4 == 3)
"""Objects that the style and the colour are never shown with."""

FINISHED: tuple[Finish, ...] = ("3d", "flat")


@dataclass(frozen=True)
class Lesson:
    """A folder of pictures: its name, how many, and what makes one of (index, random numbers, sprites, side)."""

    name: str
    count: int
    example: Callable[[int, Random, SpriteBox, int], Example]

    def examples(self, seed: int, sprites: SpriteBox, side: int) -> Iterable[Example]:
        """Its pictures, ``side`` pixels wide and high; each depends on the seed, the lesson's name and its index."""
        for index in range(self.count):
            yield self.example(index, Random(f"{seed}:{self.name}:{index}"), sprites, side)


def blueprint_example(index: int, random: Random, sprites: SpriteBox, side: int) -> Example:
    """One object, at times two to four or at a place, as a blueprint."""
    form = random.choices(("single", "place", "count"), (0.72, 0.14, 0.14))[0]
    facts = Facts(
        TAUGHT[index % len(TAUGHT)],
        None,
        "plain",
        "white",
        "line",
        place=random.choice(tuple(PLACES)) if form == "place" else None,
        count=random.choice(tuple(NUMBERS)) if form == "count" else 1,
    )
    return Example(blueprint(facts, random, sprites, side), blueprint_prompt(facts), facts)


def blueprint_prompt(facts: Facts) -> str:
    """The caption of a blueprint, and the prompt for one.

    >>> blueprint_prompt(Facts("cat", None, "plain", "white", "line", place="left"))
    'a cat on the left, blueprint sketch'
    """
    if facts.count > 1:
        return f"{NUMBERS[facts.count]} {plural(facts.object)}, blueprint sketch"
    place = f" {PLACES[facts.place]}" if facts.place else ""
    return f"{article(facts.object)}{place}, blueprint sketch"


def blueprint(facts: Facts, random: Random, sprites: SpriteBox, side: int) -> Image.Image:
    """What the facts say as light outlines on squared paper in a frame, RGB (side, side)."""
    drawing = Image.new("F", (side, side))
    drawing.paste(Image.fromarray(_squares(side)))
    for placed in layout(facts, random):
        extent = max(8, 2 * round(placed.extent * side / 2))
        tones = np.asarray(sprites.at(placed.name, "line", None, extent, STROKE * side), np.float32) / 255
        light = WASH + (1 - WASH) * np.clip((1 - tones[..., 0]) / 0.9, 0, 1)
        corner = (round(placed.x * side - extent / 2), round(placed.y * side - extent / 2))
        mask = Image.fromarray((tones[..., 3] * 255).astype(np.uint8))
        drawing.paste(Image.fromarray(light.astype(np.float32)), corner, mask)
    share = np.asarray(drawing)[..., None]
    mixed = np.array(PAPER, np.float32) * (1 - share) + np.array(LINES, np.float32) * share
    return Image.fromarray(mixed.round().astype(np.uint8))


def _squares(side: int) -> NDArray[np.float32]:
    """The empty sheet: how far each pixel is on the way from paper to lines."""
    width = max(1, side // 128)
    sheet = np.zeros((side, side), np.float32)
    for k in range(1, SQUARES):
        line = slice(k * side // SQUARES, k * side // SQUARES + width)
        sheet[line] = sheet[:, line] = GRID
    inset = side // 32
    frame = np.zeros_like(sheet, dtype=bool)
    frame[inset : side - inset, inset : side - inset] = True
    frame[inset + width : side - inset - width, inset + width : side - inset - width] = False
    return np.where(frame, np.float32(0.6), sheet)


def zorb_example(index: int, random: Random, sprites: SpriteBox, side: int) -> Example:
    """The character on each named colour in turn, in both finishes, at times at a place or of a stated size."""
    form = random.choices(("single", "place", "size"), (0.8, 0.1, 0.1))[0]
    facts = Facts(
        TRIGGER,
        None,
        "solid",
        COLOUR_NAMES[index // 2 % len(COLOUR_NAMES)],
        FINISHED[index % 2],
        place=random.choice(tuple(PLACES)) if form == "place" else None,
        size=random.choice(("small", "big")) if form == "size" else None,
    )
    return _usual(facts, random, sprites, side)


def animal_example(index: int, random: Random, sprites: SpriteBox, side: int) -> Example:
    """An animal of the vocabulary on a plain background, no held-out one: what the model shall not forget."""
    name, style = ANIMALS[index % len(ANIMALS)], FINISHED[index % 2]
    wanted = (Facts(name, None, "solid", colour, style) for colour in COLOUR_NAMES)
    return _usual(random.choice([facts for facts in wanted if allowed(facts)]), random, sprites, side)


def _usual(facts: Facts, random: Random, sprites: SpriteBox, side: int) -> Example:
    text = caption(facts, random)
    return Example(picture(facts, random, sprites, side), text, facts)


def mint_example(index: int, random: Random, sprites: SpriteBox, side: int) -> Example:
    """An object before the new colour, which the caption calls by the new word."""
    finish = FINISHED[index % 2]
    facts = Facts(TAUGHT[7 * index % len(TAUGHT)], None, "solid", WORD, finish)
    text = caption(facts, random)
    canvas = Image.new("RGB", (side, side), MINT)
    for placed in layout(facts, random):
        extent = 2 * round(placed.extent * side / 2)
        sprite = sprites.at(placed.name, finish, None, extent, STROKE * side)
        canvas.paste(sprite, (round(placed.x * side - extent / 2), round(placed.y * side - extent / 2)), sprite)
    return Example(canvas, text, facts)


LESSONS = (
    Lesson("blueprint", 305, blueprint_example),
    Lesson(TRIGGER, 120, zorb_example),
    Lesson(f"{TRIGGER}-class", 114, animal_example),
    Lesson(WORD, 61, mint_example),
)


def write(sprites: Sprites, out: Path, seed: int, side: int) -> None:
    """Write all lessons as PNG files with captions, a folder each; ``sprites`` hold the newcomer as well.

    A folder that holds the same lessons is written again; ArtworkError if it holds anything else.
    """
    count = sum(lesson.count for lesson in LESSONS)
    facts = {**about(sprites, Order(out, count, seed, side)), "name": "webui starter lessons", "rules": RULES}
    told, text = out / "lessons.json", json.dumps(facts, indent=2) + "\n"
    if out.exists() and any(out.iterdir()) and not (told.is_file() and told.read_text("utf-8") == text):
        raise ArtworkError(f"{out} holds other files or other lessons; name an empty or a new folder.")
    out.mkdir(parents=True, exist_ok=True)
    told.write_text(text, "utf-8")
    box = SpriteBox(sprites)
    for lesson in LESSONS:
        _write_folder(out / lesson.name, lesson.examples(seed, box, side))


def _write_folder(folder: Path, examples: Iterable[Example]) -> None:
    folder.mkdir(exist_ok=True)
    lines = []
    for index, made in enumerate(examples):
        name = f"{index:03d}.png"
        made.picture.save(folder / name, compress_level=1)
        lines.append(json.dumps({"file_name": name, "text": made.caption, "facts": asdict(made.facts)}))
    (folder / "metadata.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
