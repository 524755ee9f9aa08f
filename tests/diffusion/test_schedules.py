from __future__ import annotations

import itertools

import numpy as np
import pytest

from webui.diffusion.schedules import (
    DistilledTable,
    NoiseTable,
    Schedule,
    ScheduleOptions,
    beta_quantiles,
    find_schedule,
    register_schedules,
    simple,
)
from webui.errors import RequestError

TABLE = NoiseTable.scaled_linear()
SCHEDULES = register_schedules()
LOG_SIGMAS = np.log(TABLE.sigmas)


def at(timesteps) -> np.ndarray:
    return np.exp(np.interp(timesteps, np.arange(1000), LOG_SIGMAS))


def powers(n: int) -> np.ndarray:
    low, high = 0.029167158, 14.614641
    return np.array([(high ** (1 / 7) * (1 - u) + low ** (1 / 7) * u) ** 7 for u in np.linspace(0, 1, n)])


def published(levels: list[float]):
    def resampled(n: int) -> np.ndarray:
        reversed_log = np.log(levels[::-1])
        at = np.linspace(0, 1, n) if n > 1 else np.ones(1)
        return np.exp(np.interp(at, np.linspace(0, 1, len(levels)), reversed_log))[::-1]

    return resampled


AYS = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
GITS = [14.615, 4.617, 2.507, 1.236, 0.702, 0.402, 0.240, 0.156, 0.104, 0.094, 0.029]

FORMULAS = {
    "Uniform": lambda n: at(np.linspace(999, 0, n)),
    "Karras": powers,
    "Exponential": lambda n: np.geomspace(14.614641, 0.029167158, n) if n > 1 else np.array([14.614641]),
    "Polyexponential": lambda n: np.geomspace(14.614641, 0.029167158, n) if n > 1 else np.array([14.614641]),
    "SGM Uniform": lambda n: at(np.linspace(999, 0, n + 1)[:-1]),
    "KL Optimal": lambda n: np.tan(
        np.arange(n) / n * np.arctan(0.029167158) + (1 - np.arange(n) / n) * np.arctan(14.614641)
    ),
    "Align Your Steps": published(AYS),
    "Simple": lambda n: at([999 - int(i * 1000 / n) for i in range(n)]),
    "Normal": lambda n: at(np.linspace(999, 0, n)),
    "DDIM": lambda n: at(np.arange(1, 1000, 1000 // n)[::-1]),
    "Beta": lambda n: 0.029167158 + betas(n) * (14.614641 - 0.029167158),
    "Turbo": lambda n: at(np.round(np.arange(1, n + 1) * 1000 / n - 1)[::-1]),
    "Align Your Steps GITS": published(GITS),
    "Align Your Steps 11": published(AYS),
    "Align Your Steps 32": None,
}
KEYS = [
    "uniform", "karras", "exponential", "polyexponential", "sgm_uniform", "kl_optimal", "align_your_steps", "simple",
    "normal", "ddim", "beta", "turbo", "align_your_steps_GITS", "align_your_steps_11", "align_your_steps_32",
]  # fmt: skip


def betas(n: int) -> np.ndarray:
    """Quantiles of Beta(0.6, 0.6) from a table of its integral, whose poles at the ends a power of x takes away."""
    u = np.linspace(0, 0.5**0.6, 200_001)
    density = (1 - u ** (1 / 0.6)) ** -0.4
    share = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    lower = np.interp(np.minimum(wanted := np.linspace(1, 0, n), 1 - wanted), share / share[-1] / 2, u) ** (1 / 0.6)
    return np.where(wanted > 0.5, 1 - lower, lower)


def test_the_menu() -> None:
    assert [schedule.name for schedule in SCHEDULES] == list(FORMULAS)
    assert [schedule.key for schedule in SCHEDULES] == KEYS
    names = [name for schedule in SCHEDULES for name in {name.casefold() for name in schedule.names}]
    assert len(names) == len(set(names))


@pytest.fixture(params=SCHEDULES, ids=lambda schedule: schedule.key)
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return request.param


@pytest.mark.parametrize("n", [1, 2, 3, 10, 20, 31, 150, 1000])
def test_equals_its_formula_and_ends_in_zero(schedule: Schedule, n: int) -> None:
    sigmas = schedule.sigmas(TABLE, n)
    assert sigmas[-1] == (pytest.approx(TABLE.sigma_min) if schedule.name == "KL Optimal" else 0.0)
    assert all(type(sigma) is float for sigma in sigmas)
    if formula := FORMULAS[schedule.name]:
        np.testing.assert_allclose(sigmas[:-1], formula(n), rtol=1e-6 if schedule.name != "Beta" else 1e-4)
    assert schedule.name == "DDIM" or len(sigmas) == n + 1
    assert all(a > b for a, b in itertools.pairwise(sigmas))


def test_starts_at_the_top_unless_ddim(schedule: Schedule) -> None:
    top = schedule.sigmas(TABLE, 20)[0]
    assert top == pytest.approx(TABLE.sigma(951) if schedule.name == "DDIM" else TABLE.sigma_max, rel=1e-4)


def test_ddim_may_have_more_steps_than_asked() -> None:
    assert len(find_schedule("DDIM", SCHEDULES).sigmas(TABLE, 20)) == 21
    assert (
        len(find_schedule("DDIM", SCHEDULES).sigmas(TABLE, 30)) == 32
    )  # 1000 // 30 = 33, which goes 31 times into 999


def test_simple_takes_table_entries_only() -> None:
    assert set(simple(TABLE, 7)[:-1]) <= set(TABLE.sigmas.tolist())


def test_zero_terminal_snr_tables_work_too(schedule: Schedule) -> None:
    sigmas = schedule.sigmas(TABLE.zero_terminal_snr(), 12)
    assert all(a > b for a, b in itertools.pairwise(sigmas))


@pytest.mark.parametrize("name", ["Karras", "karras", "KARRAS", " karras "])
def test_found_whatever_the_case(name: str) -> None:
    assert find_schedule(name, SCHEDULES).name == "Karras"


def test_unknown_schedule_is_named() -> None:
    with pytest.raises(RequestError, match='no schedule named "Expo"'):
        find_schedule("Expo", SCHEDULES)


def test_published_lists_are_used_as_they_are() -> None:
    assert find_schedule("align_your_steps", SCHEDULES).sigmas(TABLE, 11) == [*AYS, 0.0]
    assert find_schedule("align_your_steps_gits", SCHEDULES).sigmas(TABLE, 11) == [*GITS, 0.0]
    long = find_schedule("Align Your Steps 32", SCHEDULES)
    assert long.sigmas(TABLE, 32)[-3:] == [0.03166121, 0.015, 0.0]
    assert long.sigmas(TABLE, 63)[::2][:3] == pytest.approx([14.615, 11.23951352, 8.64363081])
    assert long.levels(TABLE, 32, ScheduleOptions(sdxl=True))[1] == 11.1491618


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (1.0, 1.0), (2.0, 1.0), (0.5, 0.5), (2.0, 2.0)])
def test_beta_quantiles_where_they_are_known(a: float, b: float) -> None:
    shares = np.linspace(0, 1, 41)
    quantiles = beta_quantiles(shares, a, b)
    known = {(1.0, 1.0): shares, (2.0, 1.0): np.sqrt(shares), (0.5, 0.5): np.sin(np.pi * shares / 2) ** 2}
    if (a, b) in known:
        np.testing.assert_allclose(quantiles, known[a, b], atol=1e-12)
    if a == b == 2.0:
        np.testing.assert_allclose(3 * quantiles**2 - 2 * quantiles**3, shares, atol=1e-12)
    if a == b:
        np.testing.assert_allclose(quantiles + quantiles[::-1], 1, atol=1e-12)


def test_other_ends_and_shapes() -> None:
    table = TABLE.between(0.1, 10.0)
    for name in ("Karras", "Exponential", "Polyexponential", "KL Optimal", "Beta", "Normal"):
        sigmas = [sigma for sigma in find_schedule(name, SCHEDULES).sigmas(table, 9) if sigma > 0]
        assert (sigmas[0], sigmas[-1]) == (pytest.approx(10.0), pytest.approx(0.1))
    options = ScheduleOptions(rho=3.0, beta_alpha=1.0, beta_beta=1.0)
    by_name = {schedule.name: schedule.levels(table, 5, options) for schedule in SCHEDULES}
    roots = np.array(by_name["Karras"][:-1]) ** (1 / 3)
    np.testing.assert_allclose(np.diff(roots), np.diff(roots)[0])
    np.testing.assert_allclose(np.diff(by_name["Beta"][:-1]), -9.9 / 4)
    ramp = (np.log(by_name["Polyexponential"][:-1]) - np.log(0.1)) / np.log(100)
    np.testing.assert_allclose(np.cbrt(ramp), np.linspace(1, 0, 5), atol=1e-5)


def test_a_distilled_table_knows_every_twentieth_timestep() -> None:
    table = DistilledTable.of(TABLE)
    assert table.sigma_max == TABLE.sigma_max and table.sigma_min == TABLE.sigma(19)
    assert [table.timestep(TABLE.sigma(t)) for t in (999, 995, 985, 19, 0)] == [999, 999, 979, 19, 19]
    sigmas = find_schedule("Uniform", SCHEDULES).sigmas(table, 50)
    assert sigmas == pytest.approx([*(TABLE.sigma(999 - 20 * k) for k in range(50)), 0.0])
