"""How well the embedded model obeys: background colour, object colour, object, on pairs it never saw in training.

    python benchmarks/starter_model.py [--seeds 3] [--sheet docs/starter.png]

Background colour: the median of the picture's border is nearest to the named colour.  Object colour: among the pixels
that differ from the background, the named colour is the commonest after neutral ones.  Object: a small classifier,
trained here on the artwork itself (``starter/sprites.png``) with random colours, names the object.  The held-out pairs
are those that the training data left out (``models/README.md``).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from webui.engine.executor import Control
from webui.engine.runner import Runner
from webui.request import GenerationRequest, Sampling, Size
from webui.result import Pixels
from webui.settings import Settings

OBJECTS = [
    "cat", "panda", "frog", "penguin", "fish", "butterfly", "dinosaur", "apple", "pizza", "mushroom",
    "tree", "tulip", "star", "heart", "car", "rocket", "house", "balloon", "umbrella", "robot",
]  # fmt: skip
RECOLOURED = [
    "cat", "fish", "butterfly", "dinosaur", "apple", "mushroom", "tulip", "star", "heart", "car", "balloon", "umbrella",
]  # fmt: skip
COLOURS = {
    "red": (220, 38, 38), "orange": (245, 130, 32), "yellow": (250, 208, 40), "green": (46, 160, 67),
    "cyan": (64, 200, 220), "blue": (40, 90, 220), "purple": (135, 60, 190), "pink": (245, 130, 180),
    "brown": (125, 78, 45), "black": (28, 28, 30), "white": (245, 245, 245), "gray": (140, 142, 148),
}  # fmt: skip
NAMES = tuple(COLOURS)
STYLES = ("3d style", "flat style")
TILE = 72
CLASSIFIER_SIDE = 40


@dataclass(frozen=True)
class Case:
    """A prompt and what must be seen in its picture; None is not asked."""

    prompt: str
    thing: str
    colour: str | None
    background: str


def held_out_backgrounds() -> Iterator[Case]:
    """Object and background pairs that the training data never showed."""
    for i, thing in enumerate(OBJECTS):
        for offset in (2, 7):
            background = NAMES[(i * 5 + offset) % 12]
            for style in STYLES:
                yield Case(f"{_article(thing)} on {_article(background)} background, {style}", thing, None, background)


def held_out_colours() -> Iterator[Case]:
    """Object and colour pairs that the training data never showed, on a background of another colour."""
    for i, thing in enumerate(RECOLOURED):
        colour = NAMES[(i * 7 + 1) % 12]
        background = "white" if colour not in ("white", "gray") else "blue"
        for style in STYLES:
            prompt = f"{_article(f'{colour} {thing}')} on {_article(background)} background, {style}"
            yield Case(prompt, thing, colour, background)


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def sprites() -> list[list[Image.Image]]:
    """For each object its flat and its 3D drawing, RGBA."""
    sheet = Image.open(Path(__file__).with_name("starter") / "sprites.png")
    tiles = []
    for i in range(len(OBJECTS)):
        left, top = i % 10 * TILE, i // 10 * 2 * TILE
        tiles.append([sheet.crop((left, top + j * TILE, left + TILE, top + (j + 1) * TILE)) for j in (0, 1)])
    return tiles


class Classifier(nn.Module):
    """Grey picture (B, 1, 40, 40) -> object scores (B, 20).  Grey, so that colour cannot tell the object."""

    def __init__(self) -> None:
        super().__init__()

        def block(before: int, after: int) -> nn.Sequential:
            convolution = nn.Conv2d(before, after, 3, stride=2, padding=1)
            return nn.Sequential(convolution, nn.GroupNorm(8, after), nn.SiLU())

        self.body = nn.Sequential(block(1, 32), block(32, 64), block(64, 128), nn.Flatten(), nn.Linear(128 * 25, 20))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.body(x)
        return result


def trained_classifier(steps: int = 500, seed: int = 0) -> tuple[Classifier, float]:
    """A classifier trained on the artwork over random colours, and its accuracy on fresh drawings of the same kind."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    tiles = sprites()
    model = Classifier()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        pictures, labels = _batch(tiles, random, 64)
        loss = functional.cross_entropy(model(pictures), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pictures, labels = _batch(tiles, random, 400)
    with torch.no_grad():
        accuracy = (model(pictures).argmax(1) == labels).float().mean().item()
    return model.eval(), accuracy


def _batch(tiles: Sequence[Sequence[Image.Image]], random: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    labels = random.integers(len(tiles), size=count)
    return torch.stack([_drawing(tiles[label][random.integers(2)], random) for label in labels]), torch.from_numpy(
        labels
    )


def _drawing(tile: Image.Image, random: np.random.Generator) -> Tensor:
    side = int(128 * random.uniform(0.6, 0.82))
    mixed = np.asarray(tile.resize((side, side), Image.Resampling.LANCZOS)).astype(np.float32)
    mixed[..., :3] = np.clip(mixed[..., :3] @ random.dirichlet(np.ones(3), size=3).T * random.uniform(0.6, 1.2), 0, 255)
    picture = Image.new("RGB", (128, 128), tuple(random.integers(0, 256, 3).tolist()))
    drawn = Image.fromarray(mixed.astype(np.uint8), "RGBA")
    offset = [int(64 - side / 2 + random.uniform(-8, 8)) for _ in range(2)]
    picture.paste(drawn, (offset[0], offset[1]), drawn)
    return _seen(np.asarray(picture))


def _seen(pixels: Pixels) -> Tensor:
    """What the classifier is shown: grey, small, contrast brought to unit deviation, background brought to zero."""
    grey = Image.fromarray(pixels).convert("L").resize((CLASSIFIER_SIDE, CLASSIFIER_SIDE), Image.Resampling.BOX)
    values = torch.from_numpy(np.asarray(grey).astype(np.float32))[None]
    values = values - torch.median(torch.cat([values[0, 0], values[0, -1], values[0, :, 0], values[0, :, -1]]))
    return values / (values.std() + 5.0)


def background_colour(pixels: Pixels) -> str:
    """The name nearest to the median of the picture's border."""
    return _nearest(_border(pixels))


def _border(pixels: Pixels) -> NDArray[np.float64]:
    edge = np.concatenate([pixels[:5].reshape(-1, 3), pixels[:, :5].reshape(-1, 3), pixels[:, -5:].reshape(-1, 3)])
    median: NDArray[np.float64] = np.median(edge, axis=0)
    return median


def object_colour(pixels: Pixels, background: str) -> str:
    """The commonest named colour of the pixels that are not background; outlines and eyes lose to the body's colour."""
    away = np.abs(pixels.astype(np.int64) - _border(pixels)).sum(-1) > 90
    counted = Counter(_nearest(value) for value in pixels[away][::3].astype(np.float64))
    counted.pop(background, None)
    return counted.most_common(1)[0][0] if counted else ""


def _nearest(value: NDArray[np.float64]) -> str:
    table = np.array(list(COLOURS.values()), dtype=np.float64)
    return NAMES[int(((table - value) ** 2).sum(1).argmin())]


def pictures(runner: Runner, cases: Sequence[Case], seed: int, sampling: Sampling) -> list[Pixels]:
    """One picture for each case, at the size and settings the model recommends."""
    made = []
    for i, case in enumerate(cases):
        request = GenerationRequest(
            prompt=case.prompt, size=Size(width=128, height=128), sampling=sampling, seed=seed + i, checkpoint="starter"
        )
        for path in runner.generate(request, lambda report: None, Control()):
            made.append(np.asarray(Image.open(path).convert("RGB")))
    return made


def main() -> None:
    """Make the pictures, judge them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="pictures per prompt")
    parser.add_argument("--models-dir", type=Path, default=Settings().models_dir)
    parser.add_argument("--sampler", default="Euler")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg-scale", type=float, default=3.0)
    parser.add_argument("--sheet", type=Path, help="write a sheet of the pictures here")
    chosen = parser.parse_args()
    sampling = Sampling(sampler=chosen.sampler, steps=chosen.steps, cfg_scale=chosen.cfg_scale)
    classifier, accuracy = trained_classifier()
    print(f"classifier on the artwork itself: {accuracy:.1%}", flush=True)
    seen: list[Pixels] = []
    right: dict[str, list[bool]] = {"background colour": [], "object colour": [], "object": []}
    with TemporaryDirectory() as folder:
        runner = Runner.start(Settings(models_dir=chosen.models_dir, outputs_dir=Path(folder), load_extensions=False))
        for cases in (list(held_out_backgrounds()), list(held_out_colours())):
            for round_ in range(chosen.seeds):
                made = pictures(runner, cases, 1000 * round_, sampling)
                seen += made if round_ == 0 else []
                with torch.no_grad():
                    scores = classifier(torch.stack([_seen(pixels) for pixels in made]))
                for case, pixels, best in zip(cases, made, scores.argmax(1).tolist(), strict=True):
                    right["background colour"].append(background_colour(pixels) == case.background)
                    right["object"].append(OBJECTS[best] == case.thing)
                    if case.colour is not None:
                        right["object colour"].append(object_colour(pixels, case.background) == case.colour)
    print("| on pairs never trained together | right | of |\n|---|---|---|")
    for name, answers in right.items():
        print(f"| {name} | {np.mean(answers):.1%} | {len(answers)} |")
    if chosen.sheet:
        columns = 13
        sheet = Image.new("RGB", (columns * 130, -(-len(seen) // columns) * 130), "white")
        for i, pixels in enumerate(seen):
            sheet.paste(Image.fromarray(pixels), (i % columns * 130 + 1, i // columns * 130 + 1))
        sheet.save(chosen.sheet, optimize=True)


if __name__ == "__main__":
    main()
