from __future__ import annotations

import itertools

import numpy as np
import pytest

from webui.diffusion.schedules import NoiseTable, Schedule, find_schedule, register_schedules, simple
from webui.errors import RequestError

TABLE = NoiseTable.scaled_linear()
SCHEDULES = register_schedules()
LOG_SIGMAS = np.log(TABLE.sigmas)


def at(timesteps) -> np.ndarray:
    return np.exp(np.interp(timesteps, np.arange(1000), LOG_SIGMAS))


def powers(n: int) -> np.ndarray:
    low, high = 0.029167158, 14.614641
    return np.array([(high ** (1 / 7) * (1 - u) + low ** (1 / 7) * u) ** 7 for u in np.linspace(0, 1, n)])


FORMULAS = {
    "Uniform": lambda n: at(np.linspace(999, 0, n)),
    "Karras": powers,
    "Exponential": lambda n: np.geomspace(14.614641, 0.029167158, n) if n > 1 else np.array([14.614641]),
    "SGM Uniform": lambda n: at(np.linspace(999, 0, n + 1)[:-1]),
    "Simple": lambda n: at([999 - int(i * 1000 / n) for i in range(n)]),
    "Normal": lambda n: at(np.linspace(999, 0, n)),
    "DDIM": lambda n: at(np.arange(1, 1000, 1000 // n)[::-1]),
}


def test_the_menu() -> None:
    assert [schedule.name for schedule in SCHEDULES] == list(FORMULAS)
    names = [name for schedule in SCHEDULES for name in {name.casefold() for name in schedule.names}]
    assert len(names) == len(set(names))


@pytest.fixture(params=SCHEDULES, ids=lambda schedule: schedule.key)
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return request.param


@pytest.mark.parametrize("n", [1, 2, 3, 10, 20, 31, 150, 1000])
def test_equals_its_formula_and_ends_in_zero(schedule: Schedule, n: int) -> None:
    sigmas = schedule.sigmas(TABLE, n)
    assert sigmas[-1] == 0.0
    assert all(type(sigma) is float for sigma in sigmas)
    np.testing.assert_allclose(sigmas[:-1], FORMULAS[schedule.name](n), rtol=1e-6)
    assert schedule.name == "DDIM" or len(sigmas) == n + 1
    assert all(a > b for a, b in itertools.pairwise(sigmas))


def test_starts_at_the_top_unless_ddim(schedule: Schedule) -> None:
    top = schedule.sigmas(TABLE, 20)[0]
    assert top == pytest.approx(TABLE.sigma(951) if schedule.name == "DDIM" else TABLE.sigma_max)


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
