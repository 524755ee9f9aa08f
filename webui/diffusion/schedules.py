"""Noise levels: the table a model was trained on, and the schedules that pick a decreasing list of sigmas from it.

Numpy only, so that the server process can list schedules and resolve names without torch.  Sigmas are in the
variance-exploding form x = x0 + sigma * noise (Karras et al. 2022, arXiv:2206.00364); sigma**2 = (1 - a) / a, where a
is the cumulative product of alphas (DDPM, arXiv:2006.11239).  Formulas as in AUTOMATIC1111 1.10
``modules/sd_schedulers.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from webui.errors import unknown_name
from webui.hooks import hookimpl

if TYPE_CHECKING:
    from webui.samplers import Sampler

Named = TypeVar("Named")

AUTOMATIC = "Automatic"
"""The word that means: the sampler's own default schedule, or the uniform one when it has none."""

ZERO_SNR_LAST_ALPHA = 4.8973451890853435e-08
"""The last cumulative alpha of a zero-terminal-SNR model: tiny instead of 0, so that sigma stays finite (4518.8)."""


@dataclass(frozen=True, eq=False)
class NoiseTable:
    """The noise levels a model was trained on: ``alphas_cumprod`` (n,) float64, decreasing, one per timestep.

    Timesteps are floats in [0, n - 1]; between table entries ln(sigma) is linear in the timestep.
    """

    alphas_cumprod: NDArray[np.float64]

    @classmethod
    def scaled_linear(cls, n: int = 1000, start: float = 0.00085, end: float = 0.012) -> Self:
        """The table of Stable Diffusion: betas whose square roots are evenly spaced from ``start`` to ``end``."""
        betas = np.square(np.linspace(math.sqrt(start), math.sqrt(end), n))
        return cls(np.cumprod(1.0 - betas, dtype=np.float64))

    def zero_terminal_snr(self) -> Self:
        """This table rescaled to end in pure noise (Lin et al. 2023, arXiv:2305.08891, algorithm 1)."""
        root = np.sqrt(self.alphas_cumprod)
        first, last = root[0], root[-1]
        rescaled = ((root - last) * (first / (first - last))) ** 2
        rescaled[-1] = ZERO_SNR_LAST_ALPHA
        return type(self)(rescaled)

    @cached_property
    def sigmas(self) -> NDArray[np.float64]:
        """The noise level of each timestep (n,), increasing."""
        return np.sqrt((1.0 - self.alphas_cumprod) / self.alphas_cumprod)

    @cached_property
    def _log_sigmas(self) -> NDArray[np.float64]:
        return np.log(self.sigmas)

    @property
    def sigma_min(self) -> float:
        """The lowest trained noise level (0.0292 for SD1)."""
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        """The highest trained noise level (14.6146 for SD1)."""
        return float(self.sigmas[-1])

    def sigma(self, t: float) -> float:
        """The noise level at timestep ``t``, which is clipped to the table; exact on table entries."""
        t = min(max(t, 0.0), len(self.sigmas) - 1.0)
        low = int(t)
        if low == t:
            return float(self.sigmas[low])
        fraction = t - low
        return math.exp((1.0 - fraction) * self._log_sigmas[low] + fraction * self._log_sigmas[low + 1])

    def timestep(self, sigma: float) -> float:
        """The timestep with noise level ``sigma``, the inverse of :meth:`sigma`; clipped to [0, n - 1]."""
        high = int(np.searchsorted(self.sigmas, sigma))
        if high == len(self.sigmas):
            return high - 1.0
        if high == 0 or self.sigmas[high] == sigma:
            return float(high)
        lower, upper = float(self._log_sigmas[high - 1]), float(self._log_sigmas[high])
        return high - 1 + (math.log(sigma) - lower) / (upper - lower)

    def at(self, timesteps: Iterable[float]) -> list[float]:
        """The noise levels at several timesteps."""
        return [self.sigma(float(t)) for t in timesteps]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A schedule as it is registered.

    ``name`` is the label that users see and that stands in pictures ("Karras"), ``key`` the short form ("karras").
    ``sigmas(table, n)`` gives n + 1 decreasing noise levels for n >= 1 steps, the last one 0 (the DDIM schedule may
    give another number).
    """

    name: str
    key: str
    sigmas: Callable[[NoiseTable, int], list[float]]
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it answers to, the label first."""
        return (self.name, self.key, *self.aliases)


def uniform(table: NoiseTable, n: int) -> list[float]:
    """Timesteps evenly spaced over the whole table, both ends included."""
    return [*table.at(np.linspace(len(table.sigmas) - 1, 0, n)), 0.0]


def karras(table: NoiseTable, n: int, rho: float = 7.0) -> list[float]:
    """Evenly spaced in sigma**(1 / rho): arXiv:2206.00364, equation 5."""
    high, low = table.sigma_max ** (1 / rho), table.sigma_min ** (1 / rho)
    return [*(float(high + u * (low - high)) ** rho for u in np.linspace(0, 1, n)), 0.0]


def exponential(table: NoiseTable, n: int) -> list[float]:
    """Evenly spaced in ln(sigma)."""
    return [*np.exp(np.linspace(math.log(table.sigma_max), math.log(table.sigma_min), n)).tolist(), 0.0]


def normal(table: NoiseTable, n: int) -> list[float]:
    """Timesteps evenly spaced from that of the highest to that of the lowest sigma, both included."""
    return [*table.at(np.linspace(table.timestep(table.sigma_max), table.timestep(table.sigma_min), n)), 0.0]


def sgm_uniform(table: NoiseTable, n: int) -> list[float]:
    """As ``normal`` with one step more, whose lowest sigma is left out, as in Stability's generative-models."""
    start, end = table.timestep(table.sigma_max), table.timestep(table.sigma_min)
    return [*table.at(np.linspace(start, end, n + 1)[:-1]), 0.0]


def simple(table: NoiseTable, n: int) -> list[float]:
    """Table entries at a fixed stride, counted from the highest, without interpolation."""
    stride = len(table.sigmas) / n
    return [*(float(table.sigmas[-(1 + int(i * stride))]) for i in range(n)), 0.0]


def ddim(table: NoiseTable, n: int) -> list[float]:
    """Table entries 1, 1 + stride, 1 + 2 * stride, ... downwards; more than n of them when n does not divide 1000."""
    stride = max(len(table.sigmas) // n, 1)
    return [*table.sigmas[1::stride][::-1].tolist(), 0.0]


def timestep_grid(table: NoiseTable, n: int) -> list[float]:
    """The decreasing sigmas that DDIM and PLMS walk: those of the timesteps 1, 1 + 1000 // n, ... (no 0 at the end).

    As AUTOMATIC1111 ``modules/sd_samplers_timesteps.py``: n = 20 gives timesteps 951, 901, ..., 1 and therefore 19
    steps, the last of which ends at timestep 1.  One step would be no step at all there; here it goes from the last
    timestep to timestep 1.
    """
    last = len(table.sigmas) - 1
    timesteps = np.clip(np.arange(0, last + 1, max((last + 1) // n, 1)) + 1, 0, last)
    return table.at([last, 1] if len(timesteps) < 2 else timesteps[::-1])


UNIFORM = Schedule(name="Uniform", key="uniform", sigmas=uniform)


@hookimpl
def register_schedules() -> list[Schedule]:
    """The built-in schedules, in the order in which users see them."""
    return [
        UNIFORM,
        Schedule(name="Karras", key="karras", sigmas=karras),
        Schedule(name="Exponential", key="exponential", sigmas=exponential),
        Schedule(name="SGM Uniform", key="sgm_uniform", sigmas=sgm_uniform, aliases=("SGMUniform",)),
        Schedule(name="Simple", key="simple", sigmas=simple),
        Schedule(name="Normal", key="normal", sigmas=normal),
        Schedule(name="DDIM", key="ddim", sigmas=ddim),
    ]


def lookup(kind: str, name: str, entries: Iterable[tuple[Sequence[str], Named]]) -> Named:
    """The entry one of whose names is ``name``, whatever its case; RequestError suggests the nearest first name."""
    known = list(entries)
    wanted = name.strip().casefold()
    for names, entry in known:
        if wanted in (candidate.casefold() for candidate in names):
            return entry
    raise unknown_name(kind, name, [names[0] for names, _ in known])


def find_schedule(name: str, schedules: Iterable[Schedule]) -> Schedule:
    """The schedule with this label, key or alias, whatever its case; RequestError when there is none."""
    return lookup("schedule", name, ((schedule.names, schedule) for schedule in schedules))


def resolve_schedule(sampler: Sampler, schedule_name: str, schedules: Iterable[Schedule]) -> Schedule:
    """The schedule that ``schedule_name`` means beside ``sampler``; "Automatic" is the sampler's default or Uniform."""
    if schedule_name.strip().casefold() == AUTOMATIC.casefold():
        schedule_name = sampler.default_schedule or UNIFORM.name
    return find_schedule(schedule_name, schedules)


def split_sampler_name(text: str, samplers: Iterable[Sampler], schedules: Iterable[Schedule]) -> tuple[str, str]:
    """An old combined name as (sampler, schedule) names: "DPM++ 2M Karras" is ("DPM++ 2M", "Automatic").

    The schedule is "Automatic" when the text names none or the sampler's own default.  RequestError when what stands
    before the schedule is no sampler.
    """
    samplers, text = list(samplers), text.strip()
    trailing, rest = None, text
    known = {name.casefold() for sampler in samplers for name in sampler.names}
    if text.casefold() not in known:
        endings = ((schedule, f" {name}") for schedule in schedules for name in schedule.names)
        trailing, rest = max(
            ((schedule, text[: -len(end)]) for schedule, end in endings if text.casefold().endswith(end.casefold())),
            key=lambda found: -len(found[1]),
            default=(None, text),
        )
    sampler = lookup("sampler", rest, ((s.names, s) for s in samplers))
    if trailing is None or trailing.name.casefold() == (sampler.default_schedule or "").casefold():
        return sampler.name, AUTOMATIC
    return sampler.name, trailing.name
