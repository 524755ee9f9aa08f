from __future__ import annotations

import pytest
import torch

from webui.pipeline.soft_inpainting import between, blended
from webui.request import SoftInpainting

OPTIONS = SoftInpainting()
ORIGINAL, CURRENT = torch.randn(2, 1, 4, 5, 6, generator=torch.Generator().manual_seed(0))


def test_a_wholly_painted_place_is_the_current_one_and_a_kept_one_the_original() -> None:
    ones = torch.ones(1, 1, 5, 6)
    for level in (14.6, 0.03):
        torch.testing.assert_close(blended(ORIGINAL, CURRENT, ones, level, OPTIONS), CURRENT, rtol=0, atol=1e-4)
        torch.testing.assert_close(blended(ORIGINAL, CURRENT, 0 * ones, level, OPTIONS), ORIGINAL, rtol=0, atol=1e-4)


def test_a_grey_place_keeps_more_of_the_original_the_more_noise_there_is() -> None:
    half = torch.full((1, 1, 5, 6), 0.5)

    def away(level: float) -> float:
        return (blended(ORIGINAL, CURRENT, half, level, OPTIONS) - ORIGINAL).norm().item()

    assert away(0.1) > away(1.0) > away(10.0)


def test_the_share_is_the_mask_to_the_power_of_the_noise_level() -> None:
    options = SoftInpainting(schedule_bias=2.0, preservation_strength=0.25)
    found = blended(ORIGINAL, CURRENT, torch.full((1, 1, 5, 6), 0.5), 2.0, options)
    torch.testing.assert_close(found, between(ORIGINAL, CURRENT, torch.tensor(0.5), 4.0))


@pytest.mark.parametrize("power", [1.0, 4.0, 32.0])
def test_vectors_of_one_length_keep_it(power: float) -> None:
    one, two = torch.zeros(2, 1, 4, 1, 1)
    one[0, 0], two[0, 1] = 3.0, 3.0
    mixed = between(one, two, torch.tensor(0.3), power)
    assert mixed.norm().item() == pytest.approx(3.0, abs=1e-3)
    assert (mixed[0, 0] / mixed[0, 1]).item() == pytest.approx(0.7 / 0.3, rel=1e-5)


def test_the_length_is_the_power_mean_of_both() -> None:
    one, two = torch.zeros(2, 1, 4, 1, 1)
    one[0, 2], two[0, 2] = 1.0, 5.0
    assert between(one, two, torch.tensor(0.5), 1.0).norm().item() == pytest.approx(3.0, abs=1e-3)
    expected = ((1 + 5.0**4) / 2) ** 0.25
    assert between(one, two, torch.tensor(0.5), 4.0).norm().item() == pytest.approx(expected, abs=1e-3)


def test_long_vectors_do_not_overflow() -> None:
    assert between(1e4 * ORIGINAL, 1e4 * CURRENT, torch.tensor(0.5), 32.0).isfinite().all()
