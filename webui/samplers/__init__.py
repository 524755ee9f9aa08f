"""noise -> clean latent.  A drop-in folder: each file is one integrator that registers a :class:`Sampler`.

A sampler is a generator over a denoiser: progress, previews and cancelling belong to whoever consumes the steps.
These modules only do arithmetic on the tensors they are handed, so importing them does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from webui.diffusion.schedules import lookup

if TYPE_CHECKING:
    from torch import Tensor

    from webui.diffusion.schedules import NoiseTable


class Denoise(Protocol):
    """The model as a function: the clean latent it sees in ``x`` (B, C, h, w) whose noise has deviation ``sigma``."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The clean latent (B, C, h, w)."""
        ...


@runtime_checkable
class GuidedDenoise(Protocol):
    """A ``Denoise`` that can also show what it sees without the prompt."""

    def guided_and_unguided(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Two clean latents (B, C, h, w): the guided one, as a call answers, and the negative prompt's alone."""
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
class StepOptions:
    """What some formulas let users choose.

    ``churn`` raises the noise before each step whose level is from ``churn_low`` to ``churn_high`` (s_churn, s_tmin,
    s_tmax of Karras et al. 2022, arXiv:2206.00364, algorithm 2); ``order`` is that of UniPC.
    """

    churn: float = 0.0
    churn_low: float = 0.0
    churn_high: float = math.inf
    order: int = 3


DEFAULTS = StepOptions()


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A sampler as it is registered.

    ``default_schedule`` answers "Automatic" (None: the plain uniform one).  ``default_eta`` None means that the sampler
    adds no noise of its own.  ``grid`` is set for samplers that walk the training timesteps (DDIM, PLMS) and take no
    schedule: it gives the decreasing sigmas for a number of steps; the latent then starts as pure noise of the
    variance-preserving process, noise * sqrt(1 + sigma**2), and the last step's latent is variance-preserving, too:
    x / sqrt(1 + sigma**2) of the last sigma.  ``webui.diffusion.start`` knows both starts.  ``calls_per_step`` counts
    model calls (Heun: 2).

    ``tuned`` gives the formula for other options than the default ones; None when it has none.  ``brownian`` samplers
    want the increments of one Brownian path per picture as their noise (``webui.diffusion.brownian``).  With
    ``discards_penultimate`` the schedule is made for one step more and loses its last level above 0.  ``plans_levels``
    samplers walk levels of their own between the first and the last one above 0, in more or fewer steps than they are
    given; from noise, those that also ``ignores_schedule`` go from the model's highest level to its lowest.
    ``respaced`` changes the grid once it is cut (True: not cut).  ``table`` gives the noise levels that a distilled
    sampler knows instead of the model's.  The CFG scale is divided by ``cfg_divisor``.  ``scales_noise`` samplers take
    ``s_noise``, a factor of all the noise they add (as AUTOMATIC1111's ``sampler_extra_params``).  ``one_by_one``
    samplers look at the whole latent to decide, and are therefore given one picture at a time, whatever the batch.
    """

    name: str
    integrate: Integrate
    aliases: tuple[str, ...] = ()
    default_schedule: str | None = None
    default_eta: float | None = None
    grid: Callable[[NoiseTable, int], list[float]] | None = None
    calls_per_step: int = 1
    tuned: Callable[[StepOptions], Integrate] | None = None
    brownian: bool = False
    discards_penultimate: bool = False
    plans_levels: bool = False
    ignores_schedule: bool = False
    respaced: Callable[[NoiseTable, list[float], bool], list[float]] | None = None
    table: Callable[[NoiseTable], NoiseTable] | None = None
    one_by_one: bool = False
    cfg_divisor: float = 1.0
    scales_noise: bool = False

    def formula(self, options: StepOptions) -> Integrate:
        """Its formula with these options, as far as it has any."""
        return self.tuned(options) if self.tuned else self.integrate

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it answers to, the one that users see first."""
        return (self.name, *self.aliases)


def find_sampler(name: str, samplers: Iterable[Sampler]) -> Sampler:
    """The sampler with this name or alias, whatever its case; RequestError when there is none."""
    return lookup("sampler", name, ((sampler.names, sampler) for sampler in samplers))
