"""The table, the sheet of pictures with their captions, and the same figures as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from starter.cases import Case
from starter.judge import MEASURES, Answer
from starter.seeing import SIDE

from webui.result import Pixels

PSNR_TARGET_DB = 30.0
SECONDS_TARGET = 3.0
COLUMNS = 8
SHEET_PICTURES = 64
CAPTION_LINES = 3
LINE_PX = 13


@dataclass(frozen=True)
class Figures:
    """Everything measured about one model; ``ceiling`` are the answers about true pictures of the same facts."""

    answers: Sequence[Answer]
    ceiling: Sequence[Answer]
    background_errors: Sequence[float]
    psnr: Sequence[float]
    seconds: Sequence[float]

    def table(self) -> str:
        """Markdown; shares are of all pictures of a measure, the last column is how often the judge itself is right."""
        lines = ["| measure | right | of | asked for | judge on true pictures |", "|---|---|---|---|---|"]
        for key, measure in MEASURES.items():
            right, true = (_right(answers, key) for answers in (self.answers, self.ceiling))
            if right:
                target = f"≥ {measure.target:.0%}" if measure.target is not None else "told"
                lines.append(
                    f"| {measure.name} | {np.mean(right):.1%} | {len(right)} | {target} | {np.mean(true):.1%} |"
                )
        errors = self.background_errors
        told = [
            ("ΔE76 of the border from the colour named, mean", np.mean(errors), len(errors), "told"),
            ("VAE on fresh pictures, PSNR in dB, mean", np.mean(self.psnr), len(self.psnr), f"≥ {PSNR_TARGET_DB:.0f}"),
            ("the same, 10th percentile", np.percentile(self.psnr, 10), len(self.psnr), "told"),
            ("seconds per picture, median", np.median(self.seconds), len(self.seconds), f"≤ {SECONDS_TARGET:.0f}"),
        ]  # fmt: skip
        return "\n".join(lines + [f"| {name} | {value:.2f} | {of} | {target} | |" for name, value, of, target in told])

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values: each measure's share, count and judge's share; what was wrong, by prompt."""
        return {
            "measures": {
                key: {
                    "right": float(np.mean(right)),
                    "of": len(right),
                    "target": measure.target,
                    "judge": float(np.mean(_right(self.ceiling, key))),
                    "wrong": sorted({a.case.prompt for a in self.answers if a.measure == key and not a.right}),
                }
                for key, measure in MEASURES.items()
                if (right := _right(self.answers, key))
            },
            "background_delta_e76": float(np.mean(self.background_errors)),
            "vae_psnr_db": {"mean": float(np.mean(self.psnr)), "p10": float(np.percentile(self.psnr, 10))},
            "seconds_per_picture": float(np.median(self.seconds)),
        }


def _right(answers: Sequence[Answer], measure: str) -> list[bool]:
    return [answer.right for answer in answers if answer.measure == measure]


def sheet(cases: Sequence[Case], pictures: Sequence[Pixels]) -> Image.Image:
    """At most 64 of the pictures, spread evenly over the cases, eight in a row, each with its prompt beneath."""
    count = min(SHEET_PICTURES, len(cases))
    chosen = [i * len(cases) // count for i in range(count)]
    width, height = SIDE + 8, SIDE + 8 + CAPTION_LINES * LINE_PX
    canvas = Image.new("RGB", (COLUMNS * width, -(-count // COLUMNS) * height), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for place, i in enumerate(chosen):
        left, top = place % COLUMNS * width + 4, place // COLUMNS * height + 4
        canvas.paste(Image.fromarray(pictures[i]), (left, top))
        for row, line in enumerate(_wrapped(cases[i].prompt, font)):
            pen.text((left, top + SIDE + 1 + row * LINE_PX), line, fill="black", font=font)
    return canvas.quantize(255)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= SIDE + 4:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines[:CAPTION_LINES]
