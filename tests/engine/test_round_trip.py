"""picture -> infotext -> request -> the same picture, for random requests over the whole space of options.

``benchmarks/round_trip.py --count 500`` runs as many as one likes.
"""

from __future__ import annotations

import pytest
from option_space import furnish, round_trip

from webui.engine.runner import Runner

COUNT = 16


@pytest.mark.parametrize("seed", range(4))
def test_a_pictures_text_makes_the_picture_again(runner: Runner, seed: int) -> None:
    space = furnish(runner, seed)
    for number in range(COUNT // 4):
        trip = round_trip(runner, space.request(), last=number % 2 == 0)
        assert trip.by_file, f"{trip.asked}\n{trip.told}\n{trip.text}"
        assert trip.by_text is not False, f"{trip.asked}\n{trip.text}"
