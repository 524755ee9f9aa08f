from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.diffusion.schedules import NoiseTable, karras, register_schedules, timestep_grid
from webui.diffusion.start import Start, start_from_noise, start_from_picture
from webui.samplers import Sampler

TABLE = NoiseTable.scaled_linear()
SCHEDULES = {schedule.name: schedule for schedule in register_schedules()}
KARRAS = SCHEDULES["Karras"]
FREE = Sampler(name="free", integrate=lambda *a, **k: iter(()))
ON_GRID = Sampler(name="on a grid", integrate=lambda *a, **k: iter(()), grid=timestep_grid)


def test_from_noise() -> None:
    assert start_from_noise(FREE, KARRAS, TABLE, 20) == Start(karras(TABLE, 20), 0.0, karras(TABLE, 20)[0])
    start = start_from_noise(ON_GRID, KARRAS, TABLE, 20)
    assert start.sigmas == timestep_grid(TABLE, 20)
    assert start.noise / math.sqrt(1 + start.sigmas[0] ** 2) == pytest.approx(1)  # unit variance when scaled back


def test_three_quarters_of_twenty_steps() -> None:
    start = start_from_picture(FREE, KARRAS, TABLE, 20, 0.75)
    assert start == Start(karras(TABLE, 20)[4:], 1.0, karras(TABLE, 20)[4])
    assert len(start.sigmas) - 1 == 16


def test_exact_steps_lengthens_the_walk() -> None:
    start = start_from_picture(FREE, KARRAS, TABLE, 20, 0.75, exact_steps=True)
    assert start.sigmas == karras(TABLE, 26)[6:]
    assert len(start.sigmas) - 1 == 20


def test_full_strength_is_the_whole_walk() -> None:
    assert start_from_picture(FREE, KARRAS, TABLE, 20, 1.0).sigmas == karras(TABLE, 20)


def test_on_the_grid_the_picture_gets_the_noise_of_one_timestep_more() -> None:
    start = start_from_picture(ON_GRID, KARRAS, TABLE, 20, 0.75)
    assert [TABLE.timestep(sigma) for sigma in start.sigmas] == [1 + 50 * i for i in range(14, -1, -1)]
    a = TABLE.alphas_cumprod[751]
    to_variance_preserving = 1 / math.sqrt(1 + start.sigmas[0] ** 2)
    assert start.picture * to_variance_preserving == pytest.approx(math.sqrt(a))
    assert start.noise * to_variance_preserving == pytest.approx(math.sqrt(1 - a))


@given(
    st.sampled_from([FREE, ON_GRID]),
    st.sampled_from(sorted(SCHEDULES)),
    st.integers(1, 1000),
    st.floats(0, 1),
    st.booleans(),
)
def test_any_request_leaves_a_walk(sampler: Sampler, name: str, steps: int, strength: float, exact: bool) -> None:
    if exact and strength < 0.05:
        return  # the lengthened walk has no bound
    starts = [
        start_from_noise(sampler, SCHEDULES[name], TABLE, steps),
        start_from_picture(sampler, SCHEDULES[name], TABLE, steps, strength, exact_steps=exact),
    ]
    for start in starts:
        assert len(start.sigmas) >= 2
        assert all(a > b for a, b in zip(start.sigmas, start.sigmas[1:], strict=False))
        assert 0 <= start.picture <= 1 and start.noise > 0
