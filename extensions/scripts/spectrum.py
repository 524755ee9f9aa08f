"""Noise that looks like a picture: its spectrum is the picture's, its colours have the picture's histogram.

The method of parlance-zz's g-diffuser, as AUTOMATIC1111 1.10 uses it (``scripts/outpainting_mk_2.py``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from webui.result import Pixels

Levels = NDArray[np.float64]
"""(H, W, 3), 0 to 1."""


def filled(pixels: Pixels, unknown: NDArray[np.bool_], fall_off: float, color_variation: float) -> Pixels:
    """The picture (H, W, 3) with noise of its own kind where it is ``unknown`` (H, W); the rest is as it was.

    ``fall_off`` is the power of the picture's amplitudes in the noise's; ``color_variation`` 0 is grey noise, 1 three
    colours of their own.  Some pixels must be known.  The same picture always gets the same noise.
    """
    levels = pixels.astype(np.float64) / 255
    noise = _shaped(levels, unknown, fall_off, _smooth_noise(pixels.shape[:2], color_variation))
    levels[unknown] = _with_histogram(noise[unknown], levels[~unknown])
    result = np.array(pixels)
    result[unknown] = np.clip(levels[unknown] * 255, 0, 255).astype(np.uint8)
    return result


def _smooth_noise(shape: tuple[int, ...], color_variation: float) -> Levels:
    """Noise (H, W, 3) whose amplitudes fall with the frequency, along each axis as 1 / (1 + f²), 1 being the highest.

    The shorter side's frequencies go to 1, the longer one's further, as its length.
    """
    noise = np.random.default_rng(0).random((*shape, 3))  # as upstream: the request's seed draws the diffusion's noise
    grey = noise.mean(axis=2, keepdims=True)
    noise = noise * color_variation + grey * (1 - color_variation)
    down, across = (1 / ((2 * np.fft.fftfreq(side) * side / min(shape)) ** 2 + 1) for side in shape)
    return _picture(_spectrum(noise) * np.outer(down, across)[..., None])


def _shaped(levels: Levels, unknown: NDArray[np.bool_], fall_off: float, noise: Levels) -> Levels:
    """The noise with the picture's phases and, to the power ``fall_off``, amplitudes; 0 to 1 over all."""
    # A black hole would be the strongest feature of the spectrum; the mean colour is none.
    source = _spectrum(np.where(unknown[..., None], levels.mean(), levels / (levels.max() or 1.0)))
    amplitude = np.abs(source)
    phase = np.divide(source, amplitude, out=np.ones_like(source), where=amplitude > 0)
    shaped = _picture(np.abs(_spectrum(noise)) ** 2 * amplitude**fall_off * phase)
    shaped -= shaped.min()
    return shaped / (shaped.max() or 1.0)


def _with_histogram(values: Levels, like: Levels) -> Levels:
    """The values (N, 3) with their ranks kept and, channel by channel, the distribution of ``like`` (M, 3)."""
    matched = np.empty_like(values)
    for channel in range(values.shape[1]):
        _, ranks, counts = np.unique(values[:, channel], return_inverse=True, return_counts=True)
        known, known_counts = np.unique(like[:, channel], return_counts=True)
        quantiles = np.cumsum(counts) / len(values)
        matched[:, channel] = np.interp(quantiles, np.cumsum(known_counts) / len(like), known)[ranks]
    return matched


def _spectrum(levels: Levels) -> NDArray[np.complex128]:
    found: NDArray[np.complex128] = np.fft.fft2(levels, axes=(0, 1), norm="ortho")
    return found


def _picture(spectrum: NDArray[Any]) -> Levels:
    levels: Levels = np.fft.ifft2(spectrum, axes=(0, 1), norm="ortho").real
    return levels
