"""Where noise comes from: one CPU generator per picture, so that a picture does not depend on its batch or device.

As AUTOMATIC1111 with random numbers from the CPU (``modules/rng.py``): picture i of a job draws from a generator seeded
with seed + i, first its initial noise, then whatever a sampler asks for, in order, float32 at latent size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CPU = torch.device("cpu")


class ImageNoise:
    """The noise of a batch: :meth:`initial` once, then calls as a sampler's ``NoiseSource``.

    ``seeds`` has one seed per picture; ``shape`` is (C, h, w) of one latent.  All tensors are (B, C, h, w) float32 on
    ``device``; picture i is the same in any batch.
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device = CPU) -> None:
        self._generators = [_generator(seed) for seed in seeds]
        self._shape = shape
        self._device = device

    def initial(self) -> Tensor:
        """Unit noise for the start; the first draw from each generator."""
        return self._draw()

    def __call__(self, sigma: float, lower: float) -> Tensor:
        """Fresh unit noise for a step from ``sigma`` to ``lower``; the next draw, whatever the levels are."""
        return self._draw()

    def _draw(self) -> Tensor:
        draws = [torch.randn(self._shape, generator=generator) for generator in self._generators]
        return torch.stack(draws).to(self._device)


def posterior_noise(seed: int, shape: Sequence[int], device: torch.device = CPU) -> Tensor:
    """Unit noise (``shape``, float32) for the VAE's posterior sample of one start picture.

    AUTOMATIC1111 draws it from torch's global generator, which the first draw of initial noise leaves seeded with the
    picture's seed.  A fresh CPU generator with that seed gives the same numbers and does not depend on what ran before;
    they are the numbers that begin the initial noise, too.
    """
    return torch.randn(tuple(shape), generator=_generator(seed)).to(device)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator(CPU).manual_seed(seed)
