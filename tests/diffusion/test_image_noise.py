from __future__ import annotations

import math

import pytest
import torch

from webui.diffusion.noise import ImageNoise, NoiseOptions, posterior_noise, slerp
from webui.diffusion.philox import Philox
from webui.request import RandomSource

SHAPE = (4, 9, 7)


def test_a_picture_in_a_batch_draws_what_it_draws_alone() -> None:
    batch = ImageNoise([100, 101, 102], SHAPE)
    alone = [ImageNoise([seed], SHAPE) for seed in (100, 101, 102)]
    for draw in range(3):
        together = batch.initial() if draw == 0 else batch(1.0, 0.5)
        single = [noise.initial() if draw == 0 else noise(1.0, 0.5) for noise in alone]
        assert together.shape == (3, *SHAPE) and together.dtype == torch.float32
        assert torch.equal(together, torch.cat(single))


def test_numbers_are_those_of_torchs_cpu_generator() -> None:
    generator = torch.Generator().manual_seed(1234)
    noise = ImageNoise([1234], SHAPE)
    assert torch.equal(noise.initial()[0], torch.randn(SHAPE, generator=generator))
    assert torch.equal(noise(2.0, 1.0)[0], torch.randn(SHAPE, generator=generator))


def test_draws_differ_and_do_not_depend_on_levels_or_the_global_generator() -> None:
    first, second = ImageNoise([7], SHAPE), ImageNoise([7], SHAPE)
    a = [first.initial(), first(9.0, 8.0), first(1.0, 0.0)]
    state = torch.get_rng_state()
    torch.manual_seed(99)
    b = [second.initial(), second(3.0, 2.0), second(2.0, 1.0)]
    torch.set_rng_state(state)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[0], a[1]) and not torch.equal(a[1], a[2])


def test_seeds_to_the_largest() -> None:
    assert ImageNoise([0, 2**32 - 1, 2**63 - 1], SHAPE).initial().isfinite().all()


def test_posterior_noise_is_what_a_freshly_seeded_global_generator_gives() -> None:
    state = torch.get_rng_state()
    torch.manual_seed(55)
    expected = torch.randn((1, *SHAPE))
    torch.set_rng_state(state)
    assert torch.equal(posterior_noise(55, (1, *SHAPE)), expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_philox_numbers_are_used_where_they_are_asked_for() -> None:
    noise = ImageNoise([9, 10], SHAPE, options=NoiseOptions(source=RandomSource.NV))
    stream = Philox(10)
    assert torch.equal(noise.initial()[1], torch.from_numpy(stream.normal(SHAPE)))
    assert torch.equal(noise(2.0, 1.0)[1], torch.from_numpy(stream.normal(SHAPE)))


def test_later_noise_may_come_from_other_seeds() -> None:
    plain, moved = ImageNoise([5], SHAPE), ImageNoise([5], SHAPE, options=NoiseOptions(later_offset=31337))
    assert torch.equal(plain.initial(), moved.initial())
    assert torch.equal(moved(2.0, 1.0), ImageNoise([5 + 31337], SHAPE).initial())


def test_variations_go_from_one_noise_to_the_other() -> None:
    one, other = ImageNoise([1], SHAPE).initial(), ImageNoise([2], SHAPE).initial()

    def varied(strength: float) -> torch.Tensor:
        return ImageNoise([1], SHAPE, options=NoiseOptions(variations=(2,), strength=strength)).initial()

    assert torch.equal(varied(0.0), one)
    torch.testing.assert_close(varied(1.0), other, rtol=0, atol=1e-5)
    distances = [float((varied(strength) - one).norm()) for strength in (0.2, 0.4, 0.6, 0.8)]
    assert distances == sorted(distances)
    assert float(varied(0.5).std()) == pytest.approx(1, abs=0.1)  # a mean would have 0.7


def test_slerp_is_a_turn_in_the_plane_of_two_vectors() -> None:
    one, other = torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[0.0], [1.0]]])
    angle = math.radians(30)
    expected = torch.tensor([[[math.cos(angle)], [math.sin(angle)]]])
    torch.testing.assert_close(slerp(1 / 3, one, other), expected)


@pytest.mark.parametrize("size", [(5, 3), (13, 11), (5, 11), (9, 7)])
def test_noise_of_another_size_stands_in_the_middle(size: tuple[int, int]) -> None:
    noise = ImageNoise([4], SHAPE, options=NoiseOptions(drawn_at=size)).initial()[0]
    inner = ImageNoise([4], (4, *size)).initial()[0]
    full = ImageNoise([4], SHAPE).initial()[0]
    h, w = min(size[0], 9), min(size[1], 7)
    top, left = (9 - h) // 2, (7 - w) // 2
    middle = inner[:, (size[0] - h) // 2 :, (size[1] - w) // 2 :][:, :h, :w]
    assert torch.equal(noise[:, top : top + h, left : left + w], middle)
    noise[:, top : top + h, left : left + w] = full[:, top : top + h, left : left + w]
    assert torch.equal(noise, full)
