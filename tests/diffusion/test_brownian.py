"""Against numbers that torchsde 0.2.6 gave (BrownianTree with w0 = zeros(2, 2), entropy 1234)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from webui.diffusion.brownian import BrownianNoise, BrownianPath

LOW, HIGH = float(np.float32(0.029167158)), float(np.float32(14.614641))
TORCHSDE = {
    (0.5, 0.75): [0.5415133833885193, 0.5127130746841431, -0.4289328455924988, -0.6939355134963989],
    (2.0, 14.0): [2.225492477416992, -1.5674684047698975, -0.3084911108016968, -3.4641306400299072],
    (LOW, HIGH): [2.989084482192993, -0.907806932926178, -0.8516445159912109, -7.929539680480957],
    (0.1, 0.1001): [-0.021219704300165176, 0.004279648885130882, 0.006830486003309488, 0.013648316264152527],
}


def drawn(*shape: int):
    def draw(seed: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    return draw


@pytest.mark.parametrize("interval", TORCHSDE)
def test_increments_are_those_of_torchsde(interval: tuple[float, float]) -> None:
    path = BrownianPath(1234, LOW, HIGH, drawn(2, 2))
    assert torch.equal(path.increment(*interval).flatten(), torch.tensor(TORCHSDE[interval]))


def test_parts_add_up_to_the_whole() -> None:
    path = BrownianPath(7, LOW, HIGH, drawn(3, 4))
    points = [LOW, 0.1, 0.77, 3.14159, 9.5, HIGH]
    total = sum(path.increment(a, b) for a, b in itertools.pairwise(points))
    torch.testing.assert_close(total, path.increment(LOW, HIGH))
    assert not path.increment(1.0, 1.0).any()


def test_noise_has_unit_variance_and_is_independent_between_steps() -> None:
    noise = BrownianNoise([3], (LOW, HIGH), drawn(200, 200))
    steps = [noise(a, b).flatten() for a, b in itertools.pairwise([14.6, 5.0, 1.1, 0.2, 0.03])]
    correlations = torch.corrcoef(torch.stack(steps))
    torch.testing.assert_close(correlations, torch.eye(4), rtol=0, atol=0.02)
    assert all(float(step.std()) == pytest.approx(1, abs=0.015) for step in steps)


def test_a_step_in_two_halves_gets_the_same_noise_whatever_the_batch() -> None:
    batch, alone = (BrownianNoise(seeds, (LOW, HIGH), drawn(4, 3, 3)) for seeds in ([5, 6], [6]))
    whole = batch(4.0, 1.0) * 3.0**0.5
    torch.testing.assert_close(batch(4.0, 2.0) * 2.0**0.5 + batch(2.0, 1.0), whole)
    assert torch.equal(batch(4.0, 1.0)[1:], alone(4.0, 1.0))
