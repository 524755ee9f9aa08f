from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.diffusion.schedules import NoiseTable, karras, register_schedules, timestep_grid
from webui.diffusion.start import Start, StartOptions, start_from_noise, start_from_picture
from webui.samplers import Sampler, unipc

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
    assert start == Start(
        karras(TABLE, 20)[4:], 1.0, karras(TABLE, 20)[4], levels=(karras(TABLE, 20)[-2], karras(TABLE, 20)[0])
    )
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


def test_the_penultimate_level_is_discarded_by_the_sampler_or_on_wish() -> None:
    whole = karras(TABLE, 21)
    expected = [*whole[:-2], 0.0]
    discarding = Sampler(name="d", integrate=lambda *a, **k: iter(()), discards_penultimate=True)
    assert start_from_noise(discarding, KARRAS, TABLE, 20).sigmas == expected
    wish = StartOptions(discard_penultimate=True)
    assert start_from_noise(FREE, KARRAS, TABLE, 20, wish).sigmas == expected
    assert start_from_noise(discarding, KARRAS, TABLE, 20, wish).sigmas == expected
    assert start_from_picture(discarding, KARRAS, TABLE, 20, 0.5).sigmas == expected[9:]


def test_full_noise_has_the_variance_of_a_noised_picture() -> None:
    assert start_from_noise(FREE, KARRAS, TABLE, 20, StartOptions(full_noise=True)).noise == pytest.approx(
        math.sqrt(1 + TABLE.sigma_max**2)
    )


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_samplers_with_levels_of_their_own_span_the_table(steps: int) -> None:
    sampler = Sampler(name="f", integrate=lambda *a, **k: iter(()), plans_levels=True, ignores_schedule=True)
    sigmas = start_from_noise(sampler, KARRAS, TABLE, steps).sigmas
    assert len(sigmas) == steps + 1
    assert (sigmas[0], sigmas[-1]) == (pytest.approx(TABLE.sigma_max), pytest.approx(TABLE.sigma_min))


def test_unipc_walks_as_many_even_steps_as_automatic1111() -> None:
    sampler = next(s for s in unipc.register_samplers())
    start = start_from_noise(sampler, KARRAS, TABLE, 6)
    timesteps = [TABLE.timestep(sigma) for sigma in start.sigmas]
    assert timesteps == pytest.approx([999 - 999 / 7 * k for k in range(8)], abs=0.01)
    start = start_from_picture(sampler, KARRAS, TABLE, 20, 0.75)
    timesteps = [TABLE.timestep(sigma) for sigma in start.sigmas]
    assert timesteps == pytest.approx([701 - 701 / 15 * k for k in range(16)], abs=0.01)
    assert start.noise / start.picture == pytest.approx(TABLE.sigma(751))
