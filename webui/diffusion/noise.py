"""Where noise comes from: one generator per picture, so that a picture does not depend on its batch.

As AUTOMATIC1111 ``modules/rng.py``: picture i of a job draws from a generator seeded with seed + i, first its initial
noise, then whatever a sampler asks for, in order, float32 at latent size.  Numbers from the CPU and Philox numbers are
the same on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from webui.diffusion.brownian import BrownianNoise
from webui.diffusion.philox import Philox
from webui.request import RandomSource

CPU = torch.device("cpu")

Stream = Callable[[Sequence[int]], Tensor]
"""The next draw of unit noise of a shape."""


@dataclass(frozen=True, kw_only=True)
class NoiseOptions:
    """How a job's noise differs from the plain noise of its seeds.

    ``source`` is what draws it.  ``variations`` (one seed per picture) and ``strength`` (0 to 1) turn the initial noise
    towards that of other seeds.  ``drawn_at`` (h, w) draws it at another latent size and puts it in the middle.
    ``later_offset`` is added to the seeds for everything after the initial noise (AUTOMATIC1111's ENSD).
    """

    source: RandomSource = RandomSource.CPU
    variations: tuple[int, ...] = ()
    strength: float = 0.0
    drawn_at: tuple[int, int] | None = None
    later_offset: int = 0


PLAIN = NoiseOptions()


class ImageNoise:
    """The noise of a batch: :meth:`initial` once, then calls as a sampler's ``NoiseSource``.

    ``seeds`` has one seed per picture; ``shape`` is (C, h, w) of one latent.  All tensors are (B, C, h, w) float32 on
    ``device``; picture i is the same in any batch.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: tuple[int, int, int],
        device: torch.device = CPU,
        options: NoiseOptions = PLAIN,
    ) -> None:
        self._seeds, self._shape, self._device, self._options = list(seeds), shape, device, options
        self._streams = [self._stream(seed) for seed in seeds]

    def initial(self) -> Tensor:
        """Unit noise for the start; the first draw from each generator."""
        noise = torch.stack([self._first(index) for index in range(len(self._seeds))]).to(self._device)
        if self._options.later_offset:
            self._streams = [self._stream(seed + self._options.later_offset) for seed in self._seeds]
        return noise

    def __call__(self, sigma: float, lower: float) -> Tensor:
        """Fresh unit noise for a step from ``sigma`` to ``lower``; the next draw, whatever the levels are."""
        return torch.stack([stream(self._shape) for stream in self._streams]).to(self._device)

    def brownian(self, levels: tuple[float, float]) -> BrownianNoise:
        """A ``NoiseSource`` of one Brownian path per picture between two levels, from the pictures' seeds."""
        return BrownianNoise(self._seeds, levels, lambda seed: self._stream(seed)(self._shape).to(self._device))

    def _first(self, index: int) -> Tensor:
        """The initial noise of one picture (C, h, w).

        Noise of another size comes from a generator of its own; the picture's draws the full-size noise around it.
        """
        options, seed = self._options, self._seeds[index]
        drawn = self._shape if options.drawn_at is None else (self._shape[0], *options.drawn_at)
        resized = drawn != self._shape
        noise = self._stream(seed)(drawn) if resized else self._streams[index](drawn)
        if options.strength and options.variations:
            noise = slerp(options.strength, noise, self._stream(options.variations[index])(drawn))
        return pasted(noise, self._streams[index](self._shape)) if resized else noise

    def _stream(self, seed: int) -> Stream:
        return random_stream(seed, self._options.source, self._device)


def random_stream(seed: int, source: RandomSource, device: torch.device = CPU) -> Stream:
    """Draws of unit noise (float32) for one seed: torch's on the CPU or on ``device``, or Philox numbers."""
    if source is RandomSource.NV:
        philox = Philox(seed)
        return lambda shape: torch.from_numpy(philox.normal(shape))
    place = device if source is RandomSource.GPU else CPU
    generator = torch.Generator(place).manual_seed(seed)
    return lambda shape: torch.randn(tuple(shape), generator=generator, device=place)


def slerp(strength: float, noise: Tensor, other: Tensor) -> Tensor:
    """Between two noises (C, h, w) along the arc, 0: ``noise``, 1: ``other``; column by column of each channel.

    As AUTOMATIC1111 ``modules/rng.py``, whose vectors run along h.  Where the two are all but the same (a mean cosine
    above 0.9995) it mixes them linearly with the shares swapped; so does this.
    """
    one, two = noise / noise.norm(dim=1, keepdim=True), other / other.norm(dim=1, keepdim=True)
    cosine = (one * two).sum(1)
    if cosine.mean() > 0.9995:
        return noise * strength + other * (1 - strength)
    angle = cosine.acos()
    shares = ((1 - strength) * angle).sin() / angle.sin(), (strength * angle).sin() / angle.sin()
    result: Tensor = shares[0].unsqueeze(1) * noise + shares[1].unsqueeze(1) * other
    return result


def pasted(noise: Tensor, around: Tensor) -> Tensor:
    """``around`` (C, H, W) with the middle of ``noise`` (C, h, w) in its middle, cropped where it is larger."""
    result = around.clone()
    target, origin = [], []
    for inner, outer in zip(noise.shape[1:], around.shape[1:], strict=True):
        offset = (outer - inner) // 2
        length = inner if offset >= 0 else inner + 2 * offset
        target.append(slice(max(offset, 0), max(offset, 0) + length))
        origin.append(slice(max(-offset, 0), max(-offset, 0) + length))
    result[:, target[0], target[1]] = noise[:, origin[0], origin[1]]
    return result


def posterior_noise(seed: int, shape: Sequence[int], device: torch.device = CPU) -> Tensor:
    """Unit noise (``shape``, float32) for the VAE's posterior sample of one start picture.

    AUTOMATIC1111 draws it from torch's global CPU generator, which the first draw of initial noise leaves seeded with
    the picture's seed.  A fresh generator with that seed gives the same numbers and does not depend on what ran before;
    from the CPU they are the numbers that begin the initial noise, too.
    """
    return random_stream(seed, RandomSource.CPU)(shape).to(device)
