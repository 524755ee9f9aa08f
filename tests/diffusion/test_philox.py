from __future__ import annotations

import numpy as np
import pytest

from webui.diffusion.philox import Philox, philox


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0_A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_random123(counter, key: int, words) -> None:
    assert tuple(philox(np.array(counter, np.uint64)[:, None], key)[:, 0]) == words


def test_equals_what_torch_drew_on_a_gpu() -> None:
    """AUTOMATIC1111 ``modules/rng_philox.py`` publishes these for torch.randn(3, 4, device="cuda") and seed 0."""
    expected = [
        [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
        [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
        [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
    ]
    np.testing.assert_allclose(Philox(0).normal((3, 4)), expected, atol=1e-6)


def test_the_next_call_goes_on_and_seeds_differ() -> None:
    stream = Philox(2**40 + 3)
    first, second = stream.normal((4, 50, 50)), stream.normal((4, 50, 50))
    assert first.dtype == np.float32 and not np.array_equal(first, second)
    assert not np.array_equal(first, Philox(3).normal((4, 50, 50)))
    assert np.array_equal(first, Philox(2**40 + 3).normal((4, 50, 50)))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.03
    assert first.mean() == pytest.approx(0, abs=0.03) and first.std() == pytest.approx(1, abs=0.03)
