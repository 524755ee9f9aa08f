"""The normal numbers that torch draws on an NVIDIA GPU, computed with numpy, so that any machine can draw them.

The counter-based generator Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") with the
counters torch gives it, as AUTOMATIC1111 ``modules/rng_philox.py`` does: a call uses one offset, an element its index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
KEY_STEPS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
ROUNDS = 10
LOW = np.uint64(0xFFFFFFFF)
HIGH = np.uint64(32)
UNIT = float(np.float32(2.3283064e-10))
TURN = float(np.float32(2.3283064e-10 * 6.2831855))
"""A 32-bit number's share of 1 and of a full turn, in the single precision the GPU has them in."""


class Philox:
    """The stream of one seed (0 to 2**64 - 1)."""

    def __init__(self, seed: int) -> None:
        self._key = seed % 2**64
        self._offset = 0

    def normal(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """The next call's numbers (``shape``, float32)."""
        count = math.prod(shape)
        counter = np.zeros((4, count), np.uint64)
        counter[0] = self._offset
        counter[2] = np.arange(count)
        self._offset += 1
        first, second, *_ = philox(counter, self._key).astype(np.float64)
        radius = np.sqrt(-2.0 * np.log(first * UNIT + UNIT / 2))
        normal: NDArray[np.float32] = (radius * np.sin(second * TURN + TURN / 2)).astype(np.float32)
        return normal.reshape(tuple(shape))


def philox(counter: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """Philox4x32-10 of each column of ``counter`` (4, n), 32-bit words held in 64 bits; the same shape."""
    a, b, c, d = counter
    low, high = np.uint64(key) & LOW, np.uint64(key) >> HIGH
    for _ in range(ROUNDS):
        left, right = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, b, c, d = (right >> HIGH) ^ b ^ low, right & LOW, (left >> HIGH) ^ d ^ high, left & LOW
        low, high = (low + KEY_STEPS[0]) & LOW, (high + KEY_STEPS[1]) & LOW
    return np.stack([a, b, c, d])
