"""picture -> infotext -> request -> the same picture, for random requests over the whole space of options.

``benchmarks/round_trip.py --count 500`` runs as many as one likes.
"""

from __future__ import annotations

import pytest
from option_space import furnish, round_trip

from webui.engine.runner import Runner

COUNT = 16


FOUND = (1086, 1110, 2128)
"""Seeds of requests that once came out otherwise."""


@pytest.mark.parametrize("seed", FOUND)
def test_what_once_differed_is_the_same(runner: Runner, seed: int) -> None:
    trip = round_trip(runner, furnish(runner, seed).request(), last=seed % 2 == 0)
    assert trip.by_file
    assert trip.by_text is not False


@pytest.mark.parametrize("seed", range(4))
def test_a_pictures_text_makes_the_picture_again(runner: Runner, seed: int) -> None:
    space = furnish(runner, seed)
    for number in range(COUNT // 4):
        trip = round_trip(runner, space.request(), last=number % 2 == 0)
        assert trip.by_file, f"{trip.asked}\n{trip.told}\n{trip.text}"
        assert trip.by_text is not False, f"{trip.asked}\n{trip.text}"
