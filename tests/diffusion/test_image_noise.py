from __future__ import annotations

import torch

from webui.diffusion.noise import ImageNoise, posterior_noise

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
