"""noise -> clean latent.  A drop-in folder: each file is one integrator that registers a :class:`Sampler`.

A sampler is a generator over a denoiser: progress, previews and cancelling belong to whoever consumes the steps.
These modules only do arithmetic on the tensors they are handed, so importing them does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from webui.diffusion.schedules import lookup

if TYPE_CHECKING:
    from torch import Tensor

    from webui.diffusion.schedules import NoiseTable


class Denoise(Protocol):
    """The model as a function: the clean latent it sees in ``x`` (B, C, h, w) whose noise has deviation ``sigma``."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The clean latent (B, C, h, w)."""
        ...


class NoiseSource(Protocol):
    """Fresh unit noise shaped like the latent, drawn from each image's own generator in order."""

    def __call__(self, sigma: float, lower: float) -> Tensor:
        """Noise for a step from ``sigma`` to ``lower``."""
        ...


@dataclass(frozen=True)
class Step:
    """What a sampler yields after each step: the new latent, the clean latent it saw, and the noise level it left."""

    x: Tensor
    denoised: Tensor
    sigma: float


class Integrate(Protocol):
    """A sampler's formula.  ``x`` (B, C, h, w) has noise level ``sigmas[0]``; ``sigmas`` decrease and may end in 0.

    ``eta`` scales the noise that a stochastic sampler adds anew (0: none, 1: all); others ignore it.
    """

    def __call__(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float
    ) -> Iterator[Step]:
        """One Step per step, each computed when it is asked for."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A sampler as it is registered.

    ``default_schedule`` answers "Automatic" (None: the plain uniform one).  ``default_eta`` None means that the sampler
    adds no noise of its own.  ``grid`` is set for samplers that walk the training timesteps (DDIM, PLMS) and take no
    schedule: it gives the decreasing sigmas for a number of steps; the latent then starts as pure noise of the
    variance-preserving process, noise * sqrt(1 + sigma**2), and the last step's latent is variance-preserving, too:
    x / sqrt(1 + sigma**2) of the last sigma.  ``webui.diffusion.start`` knows both starts.  ``calls_per_step`` counts
    model calls (Heun: 2).
    """

    name: str
    integrate: Integrate
    aliases: tuple[str, ...] = ()
    default_schedule: str | None = None
    default_eta: float | None = None
    grid: Callable[[NoiseTable, int], list[float]] | None = None
    calls_per_step: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it answers to, the one that users see first."""
        return (self.name, *self.aliases)


def find_sampler(name: str, samplers: Iterable[Sampler]) -> Sampler:
    """The sampler with this name or alias, whatever its case; RequestError when there is none."""
    return lookup("sampler", name, ((sampler.names, sampler) for sampler in samplers))
