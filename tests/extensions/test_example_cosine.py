"""The extension that comes along: its schedule's known answers, and that it leaves every other picture alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.diffusion.schedules import NoiseTable, Schedule
from webui.plugins.manager import Plugins
from webui.request import GenerationRequest, Sampling

FOLDER = Path(__file__).resolve().parents[2] / "extensions"
NAME = "Cosine (example)"
TABLE = NoiseTable.scaled_linear()


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Plugins:
    folder = tmp_path_factory.mktemp("extensions")
    (folder / "example_cosine.py").write_bytes((FOLDER / "example_cosine.py").read_bytes())
    return Plugins.load(folder)


@pytest.fixture(scope="module")
def schedule(plugins: Plugins) -> Schedule:
    return plugins.schedules[NAME]


def test_it_loads_and_registers_one_schedule(plugins: Plugins) -> None:
    assert plugins.problems == []
    assert [plugin.name for plugin in plugins.extensions] == ["example_cosine"]
    assert set(plugins.schedules) - set(Plugins.load(None).schedules) == {NAME}


@given(n=st.integers(1, 300))
def test_levels_fall_from_the_highest_to_zero(schedule: Schedule, n: int) -> None:
    sigmas = schedule.sigmas(TABLE, n)
    assert len(sigmas) == n + 1 and sigmas[-1] == 0
    assert sigmas[0] == pytest.approx(TABLE.sigma_max)
    assert all(sigma > lower for sigma, lower in pairwise(sigmas))


@given(n=st.integers(2, 300))
def test_both_ends_are_treated_alike(schedule: Schedule, n: int) -> None:
    """The wave is symmetric: levels at equal distance from both ends have the same geometric mean."""
    *sigmas, _ = schedule.sigmas(TABLE, n)
    assert sigmas[-1] == pytest.approx(TABLE.sigma_min)
    products = [a * b for a, b in zip(sigmas, reversed(sigmas), strict=True)]
    assert products == pytest.approx([TABLE.sigma_max * TABLE.sigma_min] * n)


def test_it_takes_part_only_where_it_is_chosen(plugins: Plugins) -> None:
    chosen = GenerationRequest(sampling=Sampling(schedule=NAME))
    assert plugins.taking_part(GenerationRequest(), ["Stable Diffusion 1"]) == []
    assert plugins.taking_part(chosen, ["Stable Diffusion 1"]) == plugins.extensions
