"""numbers -> drawings as SVG text.  Plain strings; whatever a person wrote is escaped here.  No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from .colours import INFERNO, coloured

WIDTH, HEIGHT = 720, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 18, 16, 34
LOWEST = 0.01
"""The last level of a schedule is 0, which has no place on a logarithmic axis: it is drawn at the bottom."""
DECADES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)


def schedule(sigmas: Sequence[float], asked: Sequence[float], kept: Sequence[float], trained: Sequence[float]) -> str:
    """The planned noise levels over the steps, those asked for so far filled, those with pictures marked.

    ``trained`` are the lowest and the highest level that the model knows.
    """
    highest = max([*sigmas, *trained, 1.0]) * 1.15
    lowest = min([sigma for sigma in sigmas if sigma > 0] + [*trained, 1.0]) * 0.8
    lowest = max(lowest, LOWEST)
    steps = max(len(sigmas) - 1, 1)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / steps

    def y(sigma: float) -> float:
        share = math.log(max(sigma, lowest) / lowest) / math.log(highest / lowest)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = [_grid(x, y, lowest, highest, steps)]
    ends = ((trained[0], "lowest trained", LEFT + 4, "start"), (trained[1], "highest trained", WIDTH - RIGHT, "end"))
    for level, word, left, anchor in ends:
        line = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(level):.1f}" y2="{y(level):.1f}"'
        parts.append(f'<line class="x-trained" {line}/>')
        parts.append(f'<text class="x-note" x="{left}" y="{y(level) - 5:.1f}" text-anchor="{anchor}">{word}</text>')
    points = " ".join(f"{x(step):.1f},{y(sigma):.1f}" for step, sigma in enumerate(sigmas))
    parts.append(f'<polyline class="x-line" points="{points}"/>')
    reached = min(asked, default=math.inf) * (1 + 1e-5)
    marked = set(_nearest(sigmas, kept))
    for step, sigma in enumerate(sigmas):
        kind = "x-kept" if step in marked else "x-asked" if sigma >= reached / (1 + 2e-5) and asked else "x-planned"
        radius = 5 if step in marked else 3
        title = f"step {step + 1}: sigma {sigma:.3g}" if step < steps else "the end: no noise"
        place = f'cx="{x(step):.1f}" cy="{y(sigma):.1f}" r="{radius}"'
        parts.append(f'<circle class="{kind}" {place}><title>{title}</title></circle>')
    return _svg("".join(parts), WIDTH, HEIGHT, "Noise levels over the steps")


def _nearest(sigmas: Sequence[float], kept: Sequence[float]) -> list[int]:
    """The step whose level is nearest to each of ``kept``."""
    return [min(range(len(sigmas)), key=lambda step: abs(sigmas[step] - level)) for level in kept]


def _grid(x, y, lowest: float, highest: float, steps: int) -> str:  # type: ignore[no-untyped-def]
    parts = []
    for level in DECADES:
        if lowest <= level <= highest:
            parts.append(
                f'<line class="x-grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(level):.1f}" y2="{y(level):.1f}"/>'
            )
            parts.append(
                f'<text class="x-tick" x="{LEFT - 8}" y="{y(level) + 4:.1f}" text-anchor="end">{level:g}</text>'
            )
    every = max(1, math.ceil(steps / 10))
    for step in range(0, steps + 1, every):
        parts.append(f'<text class="x-tick" x="{x(step):.1f}" y="{HEIGHT - 14}" text-anchor="middle">{step}</text>')
    parts.append(f'<text class="x-axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 1}" text-anchor="end">steps</text>')
    parts.append(f'<text class="x-axis" x="4" y="{TOP - 4}">σ</text>')
    return "".join(parts)


def bars(values: Sequence[float], labels: Sequence[str]) -> str:
    """A row of bars, the highest as tall as the drawing; labels below."""
    width, height = 720, 120
    top, each = max([*values, 1e-9]), (width - 20) / max(len(values), 1)
    parts = []
    for place, (value, label) in enumerate(zip(values, labels, strict=True)):
        tall, left = (height - 40) * value / top, 10 + each * place
        number = f"{value:.2g}"
        wide = min(each * 0.6, 64)
        middle = left + each / 2
        parts.append(
            f'<rect class="x-bar" x="{middle - wide / 2:.1f}" y="{height - 22 - tall:.1f}" width="{wide:.1f}" '
            f'height="{tall:.1f}" rx="3"/>'
            f'<text class="x-tick" x="{middle:.1f}" y="{height - 27 - tall:.1f}" text-anchor="middle">{number}</text>'
            f'<text class="x-tick" x="{middle:.1f}" y="{height - 6}" text-anchor="middle">{escape(label)}</text>'
        )
    return _svg("".join(parts), width, height, "How far the answers with and without the prompt are apart")


def matrix(words: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """How alike each two words are, as coloured squares; the scale reaches from the least alike to 1."""
    cell, label = 46, 104
    count = len(words)
    side = label + cell * count + 6
    numbers = np.array(values, dtype=np.float64)
    low = float(numbers.min())
    shades = coloured((numbers - low) / max(1 - low, 1e-9), INFERNO)
    parts = []
    for row, word in enumerate(words):
        shown = escape(word if len(word) <= 13 else f"{word[:12]}…")
        middle = label + cell * row + cell / 2
        parts.append(f'<text class="x-word" x="{label - 8}" y="{middle + 4:.1f}" text-anchor="end">{shown}</text>')
        parts.append(
            f'<text class="x-word" transform="translate({middle + 4:.1f} {label - 8}) rotate(-55)">{shown}</text>'
        )
        for column in range(count):
            red, green, blue = (int(channel) for channel in shades[row, column])
            ink = "#1c1020" if red * 0.3 + green * 0.59 + blue * 0.11 > 120 else "#fff7ee"
            left = label + cell * column
            parts.append(
                f'<rect x="{left + 1}" y="{label + cell * row + 1}" width="{cell - 2}" height="{cell - 2}" rx="5" '
                f'fill="rgb({red},{green},{blue})"/>'
                f'<text class="x-cell" x="{left + cell / 2:.1f}" y="{middle + 4:.1f}" text-anchor="middle" '
                f'fill="{ink}">{numbers[row, column]:.2f}</text>'
            )
    return _svg("".join(parts), side + 62, side, "How alike the words are to the text encoder")


def _svg(inside: str, width: float, height: float, label: str) -> str:
    return (
        f'<svg class="x-figure" viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px" role="img" '
        f'aria-label="{escape(label)}">{inside}</svg>'
    )
