"""What the files beside the embedded model change: a style, ``blueprint``; a character, ``zorb``; a colour, ``mint``.

    python benchmarks/starter_extras.py [--pictures 16] [--sheet docs/starter-extras.png]

Every figure stands beside the one of the same prompts and seeds without the file.  Objects of the style's and the
colour's prompts, and scenes of the character's, are those that the lessons (``starter_data/lessons.py``) never showed.

Style: share of pixels whose colour lies between that of the paper and that of the lines (ΔE below 14); a picture is a
blueprint when nine of ten do and some of them are lines.  Character: the picture's outlines are compared with those of
every drawing at several sizes and all places; the best fit names it.  Colour: mean ΔE of the picture's border.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from starter.cases import own_colour, prompt
from starter.character import character
from starter.seeing import NAMED, border, lab
from starter.sprite_sheet import sprites

from webui.engine.executor import Control
from webui.engine.runner import Runner
from webui.request import GenerationRequest, Sampling, Size
from webui.result import Pixels
from webui.settings import Settings
from webui.training.starter_data.compose import STROKE
from webui.training.starter_data.lessons import ANIMALS, LINES, MINT, PAPER, TRIGGER, UNTAUGHT, WORD, blueprint_prompt
from webui.training.starter_data.scene import Facts
from webui.training.starter_data.sprites import Finish, SpriteBox
from webui.training.starter_data.vocabulary import COLOUR_NAMES, SCENES

CHECKPOINT = "starter"
STYLE = "blueprint"
SIDE = 128
FINISHED: tuple[Finish, ...] = ("3d", "flat")
LIKE = 14.0
"""ΔE from the way between paper and lines up to which a pixel may be of a blueprint."""
COMPARED = 48
"""Side in px at which outlines are compared."""
EXTENTS = (0.4, 0.46, 0.53, 0.6, 0.68, 0.76)

Lab = NDArray[np.float32]


@dataclass(frozen=True)
class Way:
    """One of the ways a prompt is drawn: how it is called in the table, and what stands behind the prompt."""

    label: str
    tag: str = ""
    installed: bool = True


@dataclass
class Artist:
    """Draws with the model; once with all files in the models folder, once with the checkpoint alone."""

    complete: Runner
    bare: Runner
    sampling: Sampling

    def draw(self, prompts: Sequence[str], way: Way, seed: int = 0) -> list[Pixels]:
        """A picture (128, 128, 3) uint8 for each prompt; equal prompts and seeds begin with the same noise."""
        runner = self.complete if way.installed else self.bare
        made = []
        for i, text in enumerate(prompts):
            request = GenerationRequest(
                prompt=text + way.tag,
                size=Size(width=SIDE, height=SIDE),
                sampling=self.sampling,
                seed=seed + i,
                checkpoint=CHECKPOINT,
            )
            paths = runner.generate(request, lambda report: None, Control())
            made += [np.asarray(Image.open(path).convert("RGB")) for path in paths]
        return made


def blueprint_shares(pixels: Pixels) -> tuple[float, float]:
    """Shares of pixels whose colour is between paper and lines, and of those nearer to the lines."""
    place, distance = _on_the_way(pixels)
    alike = distance < LIKE
    return float(alike.mean()), float((alike & (place > 0.5)).mean())


def is_blueprint(pixels: Pixels) -> bool:
    """Whether nine of ten pixels are of a blueprint, and one of fifty is a line."""
    alike, lines = blueprint_shares(pixels)
    return alike >= 0.9 and lines >= 0.02


def as_line_art(pixels: Pixels) -> Pixels:
    """A blueprint as dark lines on white: what the recogniser was taught."""
    place, _ = _on_the_way(pixels)
    level = 255 - 230 * np.clip((place - 0.25) / 0.75, 0, 1)  # the squares and the wash are no lines
    return np.repeat(level.astype(np.uint8)[..., None], 3, axis=-1)


def _on_the_way(pixels: Pixels) -> tuple[Lab, Lab]:
    """For each pixel the nearest place on the way from paper (0) to lines (1), and its ΔE from there."""
    share = np.linspace(0, 1, 33, dtype=np.float32)[:, None]
    mixes = lab(np.array(PAPER) * (1 - share) + np.array(LINES) * share)
    apart = np.linalg.norm(lab(pixels)[..., None, :] - mixes, axis=-1)
    return share[apart.argmin(-1), 0], apart.min(-1)


def named_by_outline(pixels: Pixels, finishes: tuple[Finish, ...] = FINISHED) -> str:
    """The object, or the character, whose outlines fit best anywhere in the picture."""
    seen = _outlines(pixels)
    fits = {
        name: max(float(cv2.matchTemplate(seen, form, cv2.TM_CCOEFF_NORMED).max()) for form in forms)
        for name, forms in _forms(finishes).items()
    }
    return max(fits, key=lambda name: fits[name])


def _outlines(pixels: Pixels) -> Lab:
    """Strength of the edges of a picture (128, 128, 3), softened, (48, 48)."""
    values = cv2.GaussianBlur(lab(pixels), (0, 0), 1.0)
    down, across = (cv2.Sobel(values, cv2.CV_32F, dx, dy) for dx, dy in ((0, 1), (1, 0)))
    strength = np.sqrt((down**2 + across**2).sum(-1))
    small = cv2.resize(np.sqrt(strength), (COMPARED, COMPARED), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


@lru_cache(maxsize=2)
def _forms(finishes: tuple[Finish, ...]) -> Mapping[str, Sequence[Lab]]:
    """Outlines of every drawing in these finishes, line drawings on white, others on grey, at all compared sizes."""
    drawings = {**sprites(), TRIGGER: character()}
    box = SpriteBox(drawings)
    return {
        name: [_form(box, name, finish, round(extent * SIDE)) for finish in finishes for extent in EXTENTS]
        for name in drawings
    }


def _form(box: SpriteBox, name: str, finish: Finish, side: int) -> Lab:
    canvas = Image.new("RGB", (SIDE, SIDE), "white" if finish == "line" else "gray")
    sprite = box.at(name, finish, None, side, STROKE * SIDE)
    canvas.paste(sprite, ((SIDE - side) // 2, (SIDE - side) // 2), sprite)
    low = int((SIDE - side) / 2 * COMPARED / SIDE)
    return _outlines(np.asarray(canvas))[low : COMPARED - low, low : COMPARED - low]


def style_rows(artist: Artist, count: int, shown: list[Sequence[Pixels]]) -> Iterable[Sequence[str]]:
    """Rows of the style."""
    names = _spread(UNTAUGHT, count)
    prompts = [blueprint_prompt(Facts(name, None, "plain", "white", "line")) for name in names]
    for way in (
        Way("without"),
        Way("with `<lora:blueprint:0.5>`", f" <lora:{STYLE}:0.5>"),
        Way("with `<lora:blueprint:1>`", f" <lora:{STYLE}:1>"),
    ):
        made = artist.draw(prompts, way)
        shown.append(made)
        objects = [
            named_by_outline(as_line_art(pixels) if is_blueprint(pixels) else pixels, ("line", *FINISHED))
            for pixels in made
        ]
        yield (
            f"`a …, blueprint sketch` {way.label}",
            f"is a blueprint: {_percent(is_blueprint(pixels) for pixels in made)} "
            f"(colours: {np.mean([blueprint_shares(pixels)[0] for pixels in made]):.0%})",
            f"object right: {_percent(a == b for a, b in zip(objects, names, strict=True))}",
        )


def character_rows(artist: Artist, count: int, shown: list[Sequence[Pixels]]) -> Iterable[Sequence[str]]:
    """Rows of the character, and of animals that must stay what they are."""
    plain = [
        prompt(Facts(TRIGGER, None, "solid", colour, FINISHED[i % 2]))
        for i, colour in enumerate(_spread(COLOUR_NAMES, count))
    ]
    scenes = [prompt(Facts(TRIGGER, None, "scene", name, FINISHED[i % 2])) for i, name in enumerate(SCENES)]
    animals = _spread(ANIMALS, count)
    usual = [
        prompt(Facts(name, None, "solid", COLOUR_NAMES[5 * i % 12], FINISHED[i % 2])) for i, name in enumerate(animals)
    ]
    for way in (Way("without"), Way("with `<lora:zorb:1>`", f" <lora:{TRIGGER}:1>")):
        on_plain, in_scenes, others = (artist.draw(prompts, way) for prompts in (plain, scenes, usual))
        shown.append([*on_plain[: count // 2], *in_scenes])
        objects = [named_by_outline(pixels) for pixels in others]
        yield (
            f"`a zorb …` {way.label}",
            f"is a zorb: {_percent(named_by_outline(pixels) == TRIGGER for pixels in on_plain)} on plain backgrounds, "
            f"{_percent(named_by_outline(pixels) == TRIGGER for pixels in in_scenes)} in scenes",
            f"other animals right: {_percent(a == b for a, b in zip(objects, animals, strict=True))}, "
            f"turned into a zorb: {_percent(name == TRIGGER for name in objects)}",
        )


def colour_rows(artist: Artist, count: int, shown: list[Sequence[Pixels]]) -> Iterable[Sequence[str]]:
    """Rows of the colour: the word with and without the file, and the nearest word that the model knows."""
    names = _spread(UNTAUGHT, count)
    nearest = COLOUR_NAMES[int(np.linalg.norm(NAMED - lab(np.array(MINT)), axis=1).argmin())]
    for word, way in ((WORD, Way("without", installed=False)), (nearest, Way("")), (WORD, Way("with the file"))):
        prompts = [
            prompt(Facts(name, own_colour(name, (), "3d"), "solid", word, FINISHED[i % 2]))
            for i, name in enumerate(names)
        ]
        made = artist.draw(prompts, way)
        shown.append(made)
        apart = [float(np.linalg.norm(lab(border(pixels)) - lab(np.array(MINT)))) for pixels in made]
        objects = [named_by_outline(pixels) for pixels in made]
        yield (
            f"`a … on a {word} background` {way.label}".strip(),
            f"ΔE of the background from mint: {np.mean(apart):.1f}",
            f"object right: {_percent(a == b for a, b in zip(objects, names, strict=True))}",
        )


def _spread(values: Sequence[str], count: int) -> list[str]:
    """So many of the values, evenly spread, or in turn when there are fewer."""
    if count >= len(values):
        return [values[i % len(values)] for i in range(count)]
    return [values[i * len(values) // count] for i in range(count)]


def _percent(answers: Iterable[bool]) -> str:
    return f"{np.mean(list(answers)):.0%}"


def sheet(shown: Sequence[Sequence[Pixels]], columns: int) -> Image.Image:
    """A row for each way that prompts were drawn: the same noise stands one above the other."""
    drawn = Image.new("RGB", (columns * (SIDE + 2), len(shown) * (SIDE + 2)), "white")
    for row, pictures in enumerate(shown):
        for column, pixels in enumerate(pictures[:columns]):
            drawn.paste(Image.fromarray(pixels), (column * (SIDE + 2) + 1, row * (SIDE + 2) + 1))
    return drawn


def _runner(models: Path, folder: Path) -> Runner:
    return Runner.start(Settings(models_dir=models, outputs_dir=folder, load_extensions=False))


def main() -> None:
    """Make the pictures, judge them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=16, help="prompts in each row of the table")
    parser.add_argument("--models-dir", type=Path, default=Settings().models_dir)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg-scale", type=float, default=3.0)
    parser.add_argument("--only", choices=(STYLE, TRIGGER, WORD), help="measure one of the files")
    parser.add_argument("--sheet", type=Path, help="write pictures with and without the files here")
    chosen = parser.parse_args()
    shown: list[Sequence[Pixels]] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        bare = folder / "models" / "Stable-diffusion"
        bare.mkdir(parents=True)
        file = f"{CHECKPOINT}.safetensors"
        (bare / file).symlink_to((chosen.models_dir / "Stable-diffusion" / file).resolve())
        artist = Artist(
            _runner(chosen.models_dir, folder / "complete"),
            _runner(bare.parent, folder / "bare"),
            Sampling(sampler="Euler", steps=chosen.steps, cfg_scale=chosen.cfg_scale),
        )
        print("| prompt | what it is about | what must stay |\n|---|---|---|")
        for kind, rows in ((STYLE, style_rows), (TRIGGER, character_rows), (WORD, colour_rows)):
            if chosen.only in (None, kind):
                for row in rows(artist, chosen.pictures, shown):
                    print("| " + " | ".join(row) + " |", flush=True)
    if chosen.sheet:
        sheet(shown, min(12, chosen.pictures)).save(chosen.sheet, optimize=True)


if __name__ == "__main__":
    main()
