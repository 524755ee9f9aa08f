"""Brownian paths that are a function of a seed alone: the noise of the SDE samplers, whatever steps they take.

A path over an interval is halved, and halved again, until the halves meet the point asked for; each half's share is
drawn from a generator that only the seed and the place in the tree determine (Li et al. 2020, arXiv:2001.01328, section
4).  The numbers are those of google-research/torchsde ``torchsde/_brownian`` (BrownianTree) 0.2.6, through which
AUTOMATIC1111 draws; that package is not needed (it would bring scipy, and draws from torch's generators alone).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Draw = Callable[[int], Tensor]
"""Unit noise of the right shape from a fresh generator with this seed."""

DIGITS = 6
"""Points are rounded to this many decimals, which bounds the tree's depth."""
POOL = 24
"""The size of numpy's seed pool."""


@dataclass(frozen=True)
class _Part:
    """A part of the interval and its place in the tree: the ``number``-th of its ``depth``, from 0."""

    start: float
    end: float
    number: int = 0
    depth: int = 0


@dataclass(frozen=True)
class BrownianPath:
    """A path over [``start``, ``end``] that ``seed`` determines; nothing is kept between calls."""

    seed: int
    start: float
    end: float
    draw: Draw

    def increment(self, start: float, end: float) -> Tensor:
        """How far the path goes from ``start`` to ``end`` (start <= end), points outside its interval being clipped."""
        whole = _Part(round(self.start, DIGITS), round(self.end, DIGITS))
        low, high = (round(min(max(point, whole.start), whole.end), DIGITS) for point in (start, end))
        total = self.draw(_seed(self.seed)) * math.sqrt(self.end - self.start)
        if low >= high:
            return torch.zeros_like(total)
        first, *others = self._pieces(whole, total, low, high)
        return sum(others, first)

    def _pieces(self, part: _Part, total: Tensor, low: float, high: float) -> list[Tensor]:
        """The increments, from left to right, of the largest parts that make up [low, high]."""
        if (part.start, part.end) == (low, high):
            return [total]
        middle = round(0.5 * (part.end + part.start), DIGITS)
        before, after = middle - part.start, part.end - middle
        share = 1 / (part.end - part.start)
        noise = self.draw(_seed(self.seed, (part.number, part.depth)))
        left = before * total * share + math.sqrt(before * after * share) * noise
        pieces = []
        if low < middle:
            half = _Part(part.start, middle, 2 * part.number, part.depth + 1)
            pieces += self._pieces(half, left, low, min(high, middle))
        if high > middle:
            half = _Part(middle, part.end, 2 * part.number + 1, part.depth + 1)
            pieces += self._pieces(half, total - left, max(low, middle), high)
        return pieces


class BrownianNoise:
    """A ``NoiseSource`` (B, C, h, w) of one path per picture: the path's increment between two levels at unit variance.

    As crowsonkb/k-diffusion ``k_diffusion/sampling.py`` (BrownianTreeNoiseSampler), in single precision levels.
    """

    def __init__(self, seeds: Sequence[int], levels: tuple[float, float], draw: Draw) -> None:
        low, high = (_single(level) for level in levels)
        self._paths = [BrownianPath(seed, low, high, draw) for seed in seeds]

    def __call__(self, sigma: float, lower: float) -> Tensor:
        """Unit noise for the step from ``sigma`` to ``lower``; the same whenever it is asked for."""
        start, end = _single(lower), _single(sigma)
        increments = torch.stack([path.increment(start, end) for path in self._paths])
        return -increments / math.sqrt(end - start)


def _seed(entropy: int, place: tuple[int, int] | None = None) -> int:
    sequence = np.random.SeedSequence(entropy, spawn_key=place or (), pool_size=POOL)
    return int(sequence.generate_state(1)[0])


def _single(level: float) -> float:
    return float(np.float32(level))
