"""How well a canny ControlNet for the embedded model controls: edges of its pictures beside those it was shown.

    python benchmarks/controlnet_edges.py --file models/ControlNet/starter-canny.safetensors [--pictures 32]

Hints are the canny edges of held-out pictures of the data set's kind (another seed than its own); prompts are their
captions.  Each picture is drawn twice from the same prompt and seed, with the ControlNet and without.  Figures are F1
of the picture's canny edges against the hint's, where an edge counts as found when the other has one at most a pixel
away (both dilated by a square of three).  Euler, 20 steps, CFG 3, 128 pixels, fp32.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from starter.sprite_sheet import sprites  # noqa: E402

from webui.engine.executor import Control  # noqa: E402
from webui.engine.runner import Runner  # noqa: E402
from webui.metadata.files import encode_picture  # noqa: E402
from webui.preprocessors.canny import canny  # noqa: E402
from webui.request import GenerationRequest, ModuleUse, Sampling, Size  # noqa: E402
from webui.result import Pixels  # noqa: E402
from webui.settings import Settings  # noqa: E402
from webui.training.starter_data.compose import example  # noqa: E402
from webui.training.starter_data.sprites import SpriteBox  # noqa: E402

CHECKPOINT = ROOT / "models" / "Stable-diffusion" / "starter.safetensors"
HELD_OUT = 40_009
"""Seed of the held-out pictures; the training data's seeds are small."""
SIDE = 128
Edges = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Pair:
    """A held-out picture's edges, and the pictures drawn with and without them."""

    prompt: str
    hint: Pixels
    controlled: Pixels
    free: Pixels


def edges_of(pixels: Pixels) -> Edges:
    """Where a picture has an edge."""
    return np.asarray(canny(pixels, {})[:, :, 0] > 0)


def agreement(found: Edges, wanted: Edges) -> float:
    """F1 of two pictures' edges, each of which may lie a pixel beside the other's; 1 when neither has any."""
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    precision = float(_wider(wanted)[found].mean())
    recall = float(_wider(found)[wanted].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _wider(edges: Edges) -> Edges:
    return np.asarray(cv2.dilate(edges.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)


def unit(hint: str, model: str, weight: float) -> ModuleUse:
    """The use of the ControlNet: the hint is a control picture already."""
    options: dict[str, Any] = {"image": hint, "model": model, "module": "none", "weight": weight}
    return ModuleUse(name="ControlNet", options=options)


def draw(runner: Runner, model: str, index: int, weight: float, box: SpriteBox) -> Pair:
    """One held-out picture's pair."""
    made = example(HELD_OUT, index, box, SIDE)
    hint = canny(np.array(made.picture.convert("RGB")), {})
    digest = runner.inputs.put(encode_picture(hint, ".png", {}))

    def picture(modules: tuple[ModuleUse, ...]) -> Pixels:
        request = GenerationRequest(
            prompt=made.caption,
            size=Size(width=SIDE, height=SIDE),
            sampling=Sampling(sampler="Euler", steps=20, cfg_scale=3.0),
            seed=1000 + index,
            modules=modules,
        )
        (path,) = runner.generate(request, lambda report: None, Control())
        return np.array(Image.open(path).convert("RGB"))

    return Pair(made.caption, hint, picture((unit(digest, model, weight),)), picture(()))


def pairs(file: Path, indices: Sequence[int], weight: float = 1.0, threads: int | None = None) -> list[Pair]:
    """The pairs of held-out pictures, drawn with a ControlNet file and the embedded model."""
    box = SpriteBox(sprites())
    with TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        for source, kind in ((CHECKPOINT, "Stable-diffusion"), (file, "ControlNet")):
            (models / kind).mkdir(parents=True)
            shutil.copyfile(source, models / kind / source.name)
        runner = Runner.start(
            Settings(
                models_dir=models,
                outputs_dir=Path(folder) / "outputs",
                extensions_dir=ROOT / "extensions",
                device="cpu",
                precision="fp32",
                threads=threads,
            )
        )
        return [draw(runner, file.stem, index, weight, box) for index in indices]


def scores(drawn: Sequence[Pair]) -> tuple[list[float], list[float]]:
    """F1 of each pair, with the ControlNet and without."""
    with_it, without = [], []
    for pair in drawn:
        wanted = pair.hint[:, :, 0] > 0
        with_it.append(agreement(edges_of(pair.controlled), wanted))
        without.append(agreement(edges_of(pair.free), wanted))
    return with_it, without


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--file", type=Path, default=ROOT / "models" / "ControlNet" / "starter-canny.safetensors")
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--weight", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--sheet", type=Path, help="picture of hints, pictures with and pictures without")
    chosen = parser.parse_args()
    drawn = pairs(chosen.file, range(chosen.pictures), chosen.weight, chosen.threads)
    with_it, without = scores(drawn)
    for pair, controlled, free in zip(drawn, with_it, without, strict=True):
        print(f"{controlled:.3f}  {free:.3f}  {pair.prompt}")
    better = sum(a > b for a, b in zip(with_it, without, strict=True))
    print(f"{len(drawn)} pictures, weight {chosen.weight:g}; F1 of canny edges against the hint, 1 px apart at most:")
    print(f"  with     mean {np.mean(with_it):.3f}, median {np.median(with_it):.3f}")
    print(f"  without  mean {np.mean(without):.3f}, median {np.median(without):.3f}")
    print(f"  better with it: {better} of {len(drawn)}")
    if chosen.sheet:
        rows = [np.hstack([pair.hint, pair.controlled, pair.free]) for pair in drawn]
        Image.fromarray(np.vstack(rows)).save(chosen.sheet)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
