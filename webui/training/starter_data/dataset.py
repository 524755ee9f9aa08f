"""Writes the data set: PNG files in folders of a thousand, ``metadata.jsonl``, and ``dataset.json`` about the whole."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random

from webui.training.starter_data.artwork import FLAT, SOLID, ArtworkError
from webui.training.starter_data.compose import Example, example, picture
from webui.training.starter_data.scene import Facts
from webui.training.starter_data.sprites import Rgba, SpriteBox
from webui.training.starter_data.vocabulary import OBJECTS, SHAPES, STYLES, article

FOLDER_SIZE = 1000
RULES = 1
"""Version of the rules that turn (seed, index) into a picture; to be raised when any of them changes."""

Sprites = Mapping[str, Mapping[str, Rgba]]


@dataclass(frozen=True)
class Order:
    """What is to be written: ``count`` pictures of ``side`` pixels, in ``out``."""

    out: Path
    count: int
    seed: int
    side: int


def write(sprites: Sprites, order: Order, workers: int = 1) -> None:
    """Write the data set; the files are the same for every number of workers.

    A folder that holds fewer pictures of the same data set is added to; ArtworkError if it holds anything else.
    """
    facts = about(sprites, order)
    _check_folder(order.out, facts, order.count)
    order.out.mkdir(parents=True, exist_ok=True)
    (order.out / "dataset.json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    folders = range(-(-order.count // FOLDER_SIZE))
    shares = [folders[worker::workers] for worker in range(min(workers, len(folders)))]
    if len(shares) == 1:
        written = write_folders(sprites, order, shares[0])
    else:
        with ProcessPoolExecutor(len(shares)) as pool:
            running = [pool.submit(write_folders, sprites, order, share) for share in shares]
            written = {folder: lines for done in running for folder, lines in done.result().items()}
    _write_metadata(order.out, (line for folder in folders for line in written[folder]))


def about(sprites: Sprites, order: Order) -> dict[str, object]:
    """What ``dataset.json`` says: how the data set was made and of what."""
    try:
        resvg = version("resvg-py")
    except PackageNotFoundError:
        resvg = None
    return {
        "name": "webui starter data",
        "rules": RULES,
        "seed": order.seed,
        "count": order.count,
        "size": order.side,
        "sprites_sha256": SpriteBox(sprites).digest(),
        "artwork": "Microsoft Fluent Emoji, Copyright (c) Microsoft Corporation, MIT licence",
        "packages": [
            {"name": package.name, "version": package.version, "licence": package.licence, "digest": package.integrity}
            for package in (SOLID, FLAT)
        ],
        "rasteriser": {"name": "resvg-py", "version": resvg, "licence": "MIT"},
    }


def _check_folder(out: Path, facts: Mapping[str, object], count: int) -> None:
    if not out.exists() or not any(out.iterdir()):
        return
    known = out / "dataset.json"
    try:
        before = json.loads(known.read_text("utf-8"))
    except (OSError, ValueError):
        before = None
    wanted: dict[str, object] = {key: facts[key] for key in ("name", "rules", "seed", "size", "sprites_sha256")}
    same = isinstance(before, dict) and {key: before.get(key) for key in wanted} == wanted
    if not same or before["count"] > count:
        raise ArtworkError(f"{out} holds other files or another data set; name an empty or a new folder.")


def write_folders(sprites: Sprites, order: Order, folders: Iterable[int]) -> dict[int, list[str]]:
    """Write the pictures of these folders; folder number -> its lines of ``metadata.jsonl``."""
    box = SpriteBox(sprites)
    written = {}
    for folder in folders:
        indices = range(folder * FOLDER_SIZE, min((folder + 1) * FOLDER_SIZE, order.count))
        (order.out / f"{folder:03d}").mkdir(exist_ok=True)
        written[folder] = [
            _save(order.out, f"{folder:03d}/{index:06d}.png", example(order.seed, index, box, order.side))
            for index in indices
        ]
        print(f"folder {folder:03d}: {len(indices)} pictures", file=sys.stderr, flush=True)
    return written


def _save(out: Path, name: str, made: Example) -> str:
    """Write one picture and give its line of ``metadata.jsonl``."""
    made.picture.save(out / name, compress_level=1)
    return json.dumps({"file_name": name, "text": made.caption, "facts": asdict(made.facts)})


def _write_metadata(out: Path, lines: Iterable[str]) -> None:
    partial = out / "metadata.jsonl.part"
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    partial.replace(out / "metadata.jsonl")


def write_sprites(sprites: Sprites, out: Path, side: int) -> None:
    """Write every object alone on white, 3D and flat, with captions: what a classifier learns from."""
    box = SpriteBox(sprites)
    lines = []
    for style in ("3d", "flat"):
        (out / style).mkdir(parents=True, exist_ok=True)
        for name in OBJECTS:
            facts = Facts(name, "red" if name in SHAPES else None, "plain", "white", style)
            text = article(f"{facts.colour} {name}" if facts.colour else name)
            made = Example(picture(facts, Centred(), box, side), f"{text}, {STYLES[style][0]}", facts)
            lines.append(_save(out, f"{style}/{name.replace(' ', '_')}.png", made))
    _write_metadata(out, lines)


class Centred(Random):
    """Random numbers that are always the middle of their range, so that nothing is off its place."""

    def random(self) -> float:
        """One half."""
        return 0.5

    def randint(self, a: int, b: int) -> int:
        """The middle."""
        return (a + b) // 2
