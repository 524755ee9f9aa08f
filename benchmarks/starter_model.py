"""How well the embedded model obeys, in figures, on prompts that no training picture had.

    python benchmarks/starter_model.py [--model FILE] [--quick] [--sheet docs/starter.png] [--json OUT]

    starter/cases.py         what is asked: held-out combinations of the vocabulary
    starter/drawing.py       pictures through the product's runner; the VAE there and back
    starter/seeing.py        rules: colours in CIE Lab, place, size, count, scene
    starter/recogniser.py    names object and style by comparison with the drawings
    starter/judge.py         what of a case is right
    starter/report.py        table, sheet, JSON
    starter/sprite_sheet.py  the drawings, in one file

The table's last column is how often the judge is right on the pictures that the data set itself would show: no model
can be judged better than that.  The same number of threads gives the same figures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from starter import cases as asked
from starter.cases import Case
from starter.drawing import Artist, artist, draw
from starter.judge import Answer, Judge, background_errors
from starter.recogniser import Recogniser
from starter.report import Figures, sheet
from starter.sprite_sheet import sprite_box

from webui.request import Sampling
from webui.result import Pixels
from webui.settings import Settings

EMBEDDED = Settings().models_dir / "Stable-diffusion" / "starter.safetensors"


@dataclass(frozen=True)
class Exam:
    """The cases and how thoroughly each is asked."""

    cases: list[Case]
    seeds: int
    vae_pictures: int

    def sit(self, judge: Judge, candidate: Artist) -> tuple[Figures, list[Pixels]]:
        """The figures of a model, and its first picture of each case."""
        rounds, seconds = draw(candidate, self.cases, self.seeds)
        answers: list[Answer] = []
        errors: list[float] = []
        for made in rounds:
            answers += judge.answers(self.cases, made)
            errors += background_errors(self.cases, made)
        ceiling = judge.answers(self.cases, [judge.true_picture(case) for case in self.cases])
        psnr = candidate.vae_psnr(judge.recogniser.sprites, self.vae_pictures)
        return Figures(answers, ceiling, errors, psnr, seconds), rounds[0]


def arguments() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=EMBEDDED, help="checkpoint to be judged; the embedded one")
    parser.add_argument("--seeds", type=int, default=1, help="pictures per prompt")
    parser.add_argument("--quick", action="store_true", help="some 60 of the 548 prompts")
    parser.add_argument("--first-edition", action="store_true", help="only the 104 prompts of the first edition")
    parser.add_argument("--sampler", default="Euler")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg-scale", type=float, default=3.0)
    parser.add_argument("--size", type=int, default=128, help="side of the pictures, px")
    parser.add_argument("--threads", type=int, help="threads of torch; every core")
    parser.add_argument("--sheet", type=Path, help="write 64 of the pictures with their prompts here")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser


def chosen_cases(first_edition: bool, quick: bool) -> list[Case]:
    """The cases that the options ask for; a quick look at the first edition's takes every second."""
    if first_edition:
        return asked.first_edition_cases()[:: 2 if quick else 1]
    return asked.quick_cases() if quick else asked.all_cases()


def main() -> None:
    """Make the pictures, judge them, print the table."""
    chosen = arguments().parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    exam = Exam(chosen_cases(chosen.first_edition, chosen.quick), chosen.seeds, 24 if chosen.quick else 200)
    judge = Judge(Recogniser(sprite_box()))
    print(f"{chosen.model.name}: {len(exam.cases)} prompts, {exam.seeds} each, {chosen.sampler}, {chosen.steps} steps, "
          f"CFG scale {chosen.cfg_scale:g}, {chosen.size} px\n", flush=True)  # fmt: skip
    sampling = Sampling(sampler=chosen.sampler, steps=chosen.steps, cfg_scale=chosen.cfg_scale)
    with artist(chosen.model, sampling, chosen.size, chosen.threads) as candidate:
        figures, seen = exam.sit(judge, candidate)
    print(figures.table())
    if chosen.sheet:
        sheet(exam.cases, seen).save(chosen.sheet, optimize=True)
    if chosen.json:
        settings = {
            "sampler": chosen.sampler,
            "steps": chosen.steps,
            "cfg_scale": chosen.cfg_scale,
            "side": chosen.size,
        }
        sha256 = hashlib.sha256(chosen.model.read_bytes()).hexdigest()
        about = {"model": chosen.model.name, "sha256": sha256, "seeds": chosen.seeds, "settings": settings}
        chosen.json.write_text(json.dumps({**about, **figures.to_dict()}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
