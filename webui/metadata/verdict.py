"""The verdict on a reproduction: is the picture made again the picture that was recorded, and if not, why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from PIL import Image

from webui.result import Environment, Pixels, Plugin


class Outcome(StrEnum):
    """The five verdicts, from proof to failure."""

    BIT_EXACT = "bit-exact"
    WITHIN_ONE = "equal within 1/255"
    CLOSE = "visually close"
    DIFFERENT = "different"
    CANNOT_RUN = "cannot run"


CLOSE_SSIM = 0.95
CLOSE_PSNR_DB = 30.0
"""Both must be reached for "visually close"."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome with its evidence.

    ``reasons`` are sentences: recorded facts that differ here, or why the run was not possible.  ``not_recorded`` lists
    what a picture without a recipe does not tell.  ``psnr_db`` is None when the pictures are equal.
    """

    outcome: Outcome
    reasons: tuple[str, ...] = ()
    not_recorded: tuple[str, ...] = ()
    largest_difference: int | None = None
    psnr_db: float | None = None
    ssim: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "outcome": self.outcome.value}

    def sentence(self) -> str:
        """The verdict in a line."""
        if self.outcome is Outcome.CLOSE or self.outcome is Outcome.DIFFERENT:
            psnr = f"PSNR {self.psnr_db:.1f} dB, " if self.psnr_db is not None else ""
            measure = (
                f" ({psnr}SSIM {self.ssim:.4f}, largest difference {self.largest_difference}/255)"
                if self.ssim is not None
                else ""
            )
            return self.outcome.value + measure
        return self.outcome.value


def compare(expected: Pixels, made: Pixels) -> Verdict:
    """The verdict on two pictures (H, W, 3) uint8, without reasons."""
    if expected.shape != made.shape:
        sizes = " and ".join(f"{p.shape[1]}x{p.shape[0]}" for p in (expected, made))
        return Verdict(outcome=Outcome.DIFFERENT, reasons=(f"The sizes differ: {sizes}.",))
    largest = int(np.abs(expected.astype(np.int16) - made.astype(np.int16)).max())
    if largest == 0:
        return Verdict(outcome=Outcome.BIT_EXACT, largest_difference=0, ssim=1.0)
    ratio, similarity = psnr_db(expected, made), ssim(expected, made)
    if largest == 1:
        outcome = Outcome.WITHIN_ONE
    elif similarity >= CLOSE_SSIM and ratio >= CLOSE_PSNR_DB:
        outcome = Outcome.CLOSE
    else:
        outcome = Outcome.DIFFERENT
    return Verdict(outcome=outcome, largest_difference=largest, psnr_db=ratio, ssim=similarity)


def psnr_db(first: Pixels, second: Pixels) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = float(np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def ssim(first: Pixels, second: Pixels) -> float:
    """Structural similarity of the luminance (Wang et al. 2004, equation 13), Gaussian window of deviation 1.5."""
    x, y = (np.asarray(Image.fromarray(p).convert("L"), dtype=np.float64) for p in (first, second))
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    denominator = (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return float(np.mean(numerator / denominator))


def _blur(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    offsets = np.arange(-5, 6)
    kernel = np.exp(-(offsets**2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        width = [(5, 5) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(values, width, mode="symmetric")
        length = values.shape[axis]
        values = sum(
            (k * padded.take(range(i, i + length), axis=axis) for i, k in enumerate(kernel)),
            start=np.zeros_like(values),
        )
    return values


def differences(recorded: Environment, here: Environment) -> tuple[str, ...]:
    """One sentence for each recorded fact of the environment that differs here."""
    words = {"webui": "This program", "cpu": "The processor", "threads": "The number of threads"}
    ours = here.to_dict()
    return tuple(
        f"{words.get(name, name.capitalize())} was {value}, here it is {ours[name]}."
        for name, value in recorded.to_dict().items()
        if value != ours[name]
    )


def plugin_differences(recorded: Sequence[Plugin], here: Sequence[Plugin]) -> tuple[str, ...]:
    """One sentence for each plugin that is missing here, different, or new."""
    then = {plugin.name for plugin in recorded}
    new = [f"The extension {one.name} is installed here and did not take part." for one in here if one.name not in then]
    return (*missing_plugins(recorded, here), *new)


def missing_plugins(recorded: Sequence[Plugin], here: Sequence[Plugin]) -> tuple[str, ...]:
    """One sentence for each plugin that took part and is missing here, or is another one by its files."""
    now = {plugin.name: plugin for plugin in here}
    sentences = []
    for plugin in recorded:
        one = now.get(plugin.name)
        if one is None:
            version = f" {plugin.version}" if plugin.version else ""
            sentences.append(f"The extension {plugin.name}{version} took part and is not installed here.")
        elif one.digest != plugin.digest and one.version != plugin.version:
            ours, theirs = one.version or "another version", plugin.version or "different"
            sentences.append(f"The extension {plugin.name} is {ours} here, was {theirs}.")
        elif one.digest != plugin.digest:
            sentences.append(
                f"The extension {plugin.name} has other files here (SHA-256 {one.digest[:12]}) "
                f"than when it took part ({plugin.digest[:12]})."
            )
    return tuple(sentences)
