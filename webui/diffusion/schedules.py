"""Noise levels: the table a model was trained on, and the schedules that pick a decreasing list of sigmas from it.

Numpy only, so that the server process can list schedules and resolve names without torch.  Sigmas are in the
variance-exploding form x = x0 + sigma * noise (Karras et al. 2022, arXiv:2206.00364); sigma**2 = (1 - a) / a, where a
is the cumulative product of alphas (DDPM, arXiv:2006.11239).  Formulas as in AUTOMATIC1111 1.10
``modules/sd_schedulers.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

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

    Timesteps are floats in [0, n - 1]; between table entries ln(sigma) is linear in the timestep.  ``lowest`` and
    ``highest`` replace the ends that schedules are spread between; the entries stay what they are.  With
    ``whole_timesteps`` a level between two entries is asked about at the nearer one (AUTOMATIC1111's
    enable_quantization).
    """

    alphas_cumprod: NDArray[np.float64]
    lowest: float | None = None
    highest: float | None = None
    whole_timesteps: bool = False

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
        return replace(self, alphas_cumprod=rescaled)

    def downcast(self) -> Self:
        """This table as half precision makes it: alphas and levels each rounded to 11 bits.

        As AUTOMATIC1111's use_downcasted_alpha_bar (``modules/sd_models.py``), whose levels are computed in fp16.
        """
        alphas = self.alphas_cumprod.astype(np.float16)
        levels = np.sqrt((np.float16(1) - alphas) / alphas).astype(np.float64)
        return replace(self, alphas_cumprod=1.0 / (1.0 + np.square(levels)))

    def between(self, lowest: float, highest: float) -> Self:
        """This table with other ends for schedules; 0 leaves an end as it is."""
        return replace(self, lowest=lowest or self.lowest, highest=highest or self.highest)

    @property
    def timesteps(self) -> tuple[float, float]:
        """The first and the last trained timestep."""
        return 0.0, len(self.sigmas) - 1.0

    @cached_property
    def sigmas(self) -> NDArray[np.float64]:
        """The noise level of each timestep (n,), increasing."""
        return np.sqrt((1.0 - self.alphas_cumprod) / self.alphas_cumprod)

    @cached_property
    def _log_sigmas(self) -> NDArray[np.float64]:
        return np.log(self.sigmas)

    @property
    def sigma_min(self) -> float:
        """The lowest noise level of a schedule; unless replaced, the lowest trained one (0.0292 for SD1)."""
        return self.lowest or float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        """The highest noise level of a schedule; unless replaced, the highest trained one (14.6146 for SD1)."""
        return self.highest or float(self.sigmas[-1])

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
        between = self._between_timesteps(sigma)
        return float(round(between)) if self.whole_timesteps else between

    def _between_timesteps(self, sigma: float) -> float:
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


class DistilledTable(NoiseTable):
    """Every ``STRIDE``-th timestep of a table, the last one included, which is all that an LCM was taught.

    Luo et al. 2023 (arXiv:2310.04378), as AUTOMATIC1111 ``modules/sd_samplers_lcm.py`` (LCMCompVisDenoiser): a sigma is
    asked about at the nearest taught timestep in ln(sigma).
    """

    STRIDE: ClassVar[int] = 20

    @classmethod
    def of(cls, table: NoiseTable) -> DistilledTable:
        """The 50 timesteps 19, 39, ... 999 of a table of 1000."""
        return cls(table.alphas_cumprod[cls.STRIDE - 1 :: cls.STRIDE], table.lowest, table.highest)

    @property
    def timesteps(self) -> tuple[float, float]:
        """The first and the last taught timestep of the table this one was made of."""
        return self.STRIDE - 1.0, len(self.sigmas) * self.STRIDE - 1.0

    def sigma(self, t: float) -> float:
        """The noise level at timestep ``t`` of the table this one was made of."""
        return super().sigma((t - (self.STRIDE - 1)) / self.STRIDE)

    def timestep(self, sigma: float) -> float:
        """The taught timestep nearest to the noise level ``sigma``."""
        nearest = int(np.abs(self._log_sigmas - math.log(sigma)).argmin())
        return float(nearest * self.STRIDE + self.STRIDE - 1)


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """What some schedules let users choose; ``rho`` 0 is a schedule's own.  ``sdxl`` tells that the model is one."""

    rho: float = 0.0
    beta_alpha: float = 0.6
    beta_beta: float = 0.6
    sdxl: bool = False


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A schedule as it is registered.

    ``name`` is the label that users see and that stands in pictures ("Karras"), ``key`` the short form ("karras").
    ``sigmas(table, n)`` gives n + 1 decreasing noise levels for n >= 1 steps, the last one 0 (the DDIM schedule may
    give another number, KL Optimal ends at the lowest trained level).  ``tuned`` is the same with other options than
    the default ones; None when it has none.
    """

    name: str
    key: str
    sigmas: Callable[[NoiseTable, int], list[float]]
    aliases: tuple[str, ...] = ()
    tuned: Callable[[NoiseTable, int, ScheduleOptions], list[float]] | None = None

    def levels(self, table: NoiseTable, n: int, options: ScheduleOptions) -> list[float]:
        """The noise levels for ``n`` steps with these options, as far as it has any."""
        return self.tuned(table, n, options) if self.tuned else self.sigmas(table, n)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it answers to, the label first."""
        return (self.name, self.key, *self.aliases)


def uniform(table: NoiseTable, n: int) -> list[float]:
    """Timesteps evenly spaced over the whole table, both ends included."""
    first, last = table.timesteps
    return [*table.at(np.linspace(last, first, n)), 0.0]


def karras(table: NoiseTable, n: int, rho: float = 7.0) -> list[float]:
    """Evenly spaced in sigma**(1 / rho): arXiv:2206.00364, equation 5."""
    return [*karras_levels(n, table.sigma_max, table.sigma_min, rho), 0.0]


def karras_levels(n: int, high: float, low: float, rho: float = 7.0) -> list[float]:
    """``n`` levels from ``high`` to ``low``, both included, evenly spaced in sigma**(1 / rho)."""
    start, end = high ** (1 / rho), low ** (1 / rho)
    return [float(start + u * (end - start)) ** rho for u in np.linspace(0, 1, n)]


def exponential(table: NoiseTable, n: int) -> list[float]:
    """Evenly spaced in ln(sigma)."""
    return [*np.exp(np.linspace(math.log(table.sigma_max), math.log(table.sigma_min), n)).tolist(), 0.0]


def polyexponential(table: NoiseTable, n: int, rho: float = 1.0) -> list[float]:
    """As ``exponential``, but for the power ``rho`` of the ramp from 1 to 0."""
    low, high = math.log(table.sigma_min), math.log(table.sigma_max)
    return [*np.exp(np.linspace(1, 0, n) ** rho * (high - low) + low).tolist(), 0.0]


def kl_optimal(table: NoiseTable, n: int) -> list[float]:
    """Evenly spaced in arctan(sigma), n + 1 levels that end at the lowest, not at 0: Sabour et al. 2024
    (arXiv:2404.14507), theorem 3.1.
    """
    arcs = np.linspace(math.atan(table.sigma_max), math.atan(table.sigma_min), n + 1)
    return [math.tan(arc) for arc in arcs]


def beta(table: NoiseTable, n: int, a: float = 0.6, b: float = 0.6) -> list[float]:
    """Quantiles of a beta distribution between the ends, spread in sigma: Lee et al. 2024 (arXiv:2407.12173)."""
    low, high = table.sigma_min, table.sigma_max
    return [*(low + beta_quantiles(np.linspace(1, 0, n), a, b) * (high - low)).tolist(), 0.0]


def beta_quantiles(shares: NDArray[np.float64], a: float, b: float) -> NDArray[np.float64]:
    """Where the beta distribution's cumulative share is each of ``shares`` (0 to 1), by bisection to 1e-15."""
    low, high = np.zeros_like(shares), np.ones_like(shares)
    for _ in range(50):
        middle = (low + high) / 2
        above = _beta_share(middle, a, b) > shares
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.where(shares <= 0, 0.0, np.where(shares >= 1, 1.0, (low + high) / 2))


def _beta_share(x: NDArray[np.float64], a: float, b: float) -> NDArray[np.float64]:
    """The regularised incomplete beta function for 0 < x < 1: DLMF 8.17.22, its fraction taken backwards."""
    swap = x > (a + 1) / (a + b + 2)
    x = np.where(swap, 1 - x, x)
    p, q = np.where(swap, b, a), np.where(swap, a, b)
    fraction = np.ones_like(x)
    for m in range(60, -1, -1):
        odd = -(p + m) * (p + q + m) * x / ((p + 2 * m) * (p + 2 * m + 1))
        even = (m + 1) * (q - m - 1) * x / ((p + 2 * m + 1) * (p + 2 * m + 2))
        fraction = 1 + odd / (1 + even / fraction)
    log_share = p * np.log(x) + q * np.log1p(-x) - np.log(p * fraction)
    share = np.exp(log_share - (math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)))
    result: NDArray[np.float64] = np.where(swap, 1 - share, share)
    return result


def turbo(table: NoiseTable, n: int) -> list[float]:
    """Table entries at a fixed stride, counted down from the last: 999, 999 - 1000 / n, ..., as SDXL Turbo was taught.

    As lllyasviel/stable-diffusion-webui-forge ``modules/sd_schedulers.py`` (turbo_scheduler).
    """
    count = len(table.sigmas)
    timesteps = np.clip(np.round(np.arange(n, 0, -1) * (count / n) - 1), 0, count - 1)
    return [*table.sigmas[timesteps.astype(int)].tolist(), 0.0]


ALIGN_YOUR_STEPS = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGN_YOUR_STEPS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
"""Published levels of Sabour et al. 2024 (arXiv:2404.14507), for SD1 and SDXL."""
GITS = (14.615, 4.617, 2.507, 1.236, 0.702, 0.402, 0.240, 0.156, 0.104, 0.094, 0.029)
GITS_SDXL = (14.615, 4.734, 2.567, 1.529, 0.987, 0.652, 0.418, 0.268, 0.179, 0.127, 0.029)
"""Levels found with Chen et al. 2024 (arXiv:2405.11326); these and the next as Forge's ``modules/sd_schedulers.py``."""
ALIGN_YOUR_STEPS_32 = (
    14.615, 11.23951352, 8.64363081, 6.64729424, 5.57250862, 4.71648546, 3.99196065, 3.5195609, 3.13490466, 2.79228788,
    2.48773628, 2.21663865, 1.97508351, 1.7793172, 1.61475335, 1.46540953, 1.314849, 1.16642497, 1.03475547, 0.91573744,
    0.80748169, 0.71202361, 0.621739, 0.53065202, 0.4529096, 0.37491455, 0.27461819, 0.20115291, 0.14105873, 0.06682881,
    0.03166121, 0.015,
)  # fmt: skip
ALIGN_YOUR_STEPS_32_SDXL = (
    14.615, 11.1491618, 8.50522127, 6.48827151, 5.43707402, 4.60398619, 3.89854704, 3.27407457, 2.74396527, 2.29968659,
    1.95448514, 1.67108715, 1.42878152, 1.23181009, 1.06789649, 0.92579443, 0.80290886, 0.69660121, 0.60436903,
    0.52852552, 0.46773344, 0.41393379, 0.36258186, 0.31008517, 0.26518925, 0.22326461, 0.17653877, 0.13959192,
    0.10587381, 0.05519369, 0.02877334, 0.015,
)  # fmt: skip


def stretched(levels: Sequence[float], n: int) -> list[float]:
    """``n`` levels and 0: the given ones, or as many as wanted by linear interpolation of ln(sigma) over their number.

    One step starts at the highest level (AUTOMATIC1111 starts it at the lowest, which makes no picture).
    """
    if n == len(levels):
        return [*levels, 0.0]
    at = np.linspace(0, len(levels) - 1, n)
    return [*np.exp(np.interp(at, np.arange(len(levels)), np.log(levels))).tolist(), 0.0]


def _published(name: str, key: str, levels: Sequence[float], sdxl: Sequence[float]) -> Schedule:
    return Schedule(
        name=name,
        key=key,
        sigmas=lambda table, n: stretched(levels, n),
        tuned=lambda table, n, options: stretched(sdxl if options.sdxl else levels, n),
    )


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


BUILT_IN: tuple[Schedule, ...] = (
    UNIFORM,
    Schedule(
        name="Karras",
        key="karras",
        sigmas=karras,
        tuned=lambda table, n, options: karras(table, n, options.rho or 7.0),
    ),
    Schedule(name="Exponential", key="exponential", sigmas=exponential),
    Schedule(
        name="Polyexponential",
        key="polyexponential",
        sigmas=polyexponential,
        tuned=lambda table, n, options: polyexponential(table, n, options.rho or 1.0),
    ),
    Schedule(name="SGM Uniform", key="sgm_uniform", sigmas=sgm_uniform, aliases=("SGMUniform",)),
    Schedule(name="KL Optimal", key="kl_optimal", sigmas=kl_optimal),
    _published("Align Your Steps", "align_your_steps", ALIGN_YOUR_STEPS, ALIGN_YOUR_STEPS_SDXL),
    Schedule(name="Simple", key="simple", sigmas=simple),
    Schedule(name="Normal", key="normal", sigmas=normal),
    Schedule(name="DDIM", key="ddim", sigmas=ddim),
    Schedule(
        name="Beta",
        key="beta",
        sigmas=beta,
        tuned=lambda table, n, options: beta(table, n, options.beta_alpha, options.beta_beta),
    ),
    Schedule(name="Turbo", key="turbo", sigmas=turbo),
    _published("Align Your Steps GITS", "align_your_steps_GITS", GITS, GITS_SDXL),
    _published("Align Your Steps 11", "align_your_steps_11", ALIGN_YOUR_STEPS, ALIGN_YOUR_STEPS_SDXL),
    _published("Align Your Steps 32", "align_your_steps_32", ALIGN_YOUR_STEPS_32, ALIGN_YOUR_STEPS_32_SDXL),
)


@hookimpl
def register_schedules() -> list[Schedule]:
    """The built-in schedules, in the order in which users see them."""
    return list(BUILT_IN)


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
