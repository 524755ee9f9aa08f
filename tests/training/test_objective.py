"""The loss against closed forms: the forward process, targets, min-SNR weights and the spread of timesteps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from webui.diffusion.prediction import Prediction
from webui.diffusion.schedules import NoiseTable
from webui.errors import RequestError
from webui.training.objective import LATE_FROM, Objective
from webui.training.request import Noise

TABLE = NoiseTable.scaled_linear()
N = 1000


def objective(prediction: Prediction = Prediction.EPSILON, **noise: object) -> Objective:
    return Objective.of(prediction, TABLE, Noise(**noise))  # type: ignore[arg-type]


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, 6, 4, 8, 8, generator=random)
    return latents, noise, torch.tensor([0, 10, 250, 500, 900, 999])


@pytest.mark.parametrize("prediction", [Prediction.EPSILON, Prediction.V])
def test_the_question_is_diffusers(prediction: Prediction) -> None:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    latents, noise, timesteps = drawn()
    asked = objective(prediction).question(latents, noise, timesteps)
    torch.testing.assert_close(asked.noisy, scheduler.add_noise(latents, noise, timesteps), rtol=1e-5, atol=1e-5)
    target = noise if prediction is Prediction.EPSILON else scheduler.get_velocity(latents, noise, timesteps)
    torch.testing.assert_close(asked.target, target, rtol=1e-5, atol=1e-5)


def test_v_and_noisy_give_back_latent_and_noise() -> None:
    """x0 = sqrt(a) x - sqrt(1 - a) v, and noise = sqrt(1 - a) x + sqrt(a) v."""
    latents, noise, timesteps = drawn()
    asked = objective(Prediction.V).question(latents, noise, timesteps)
    alpha = torch.from_numpy(TABLE.alphas_cumprod).float()[timesteps].view(-1, 1, 1, 1)
    signal, level = alpha.sqrt(), (1 - alpha).sqrt()
    torch.testing.assert_close(signal * asked.noisy - level * asked.target, latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(level * asked.noisy + signal * asked.target, noise, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weights(gamma: float) -> None:
    """Weighted errors of epsilon, v and x0 answers are one and the same: min(SNR, gamma) times the error in x0."""
    latents, noise, timesteps = drawn()
    wrong = 0.1 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    alpha = torch.from_numpy(TABLE.alphas_cumprod).float()[timesteps].view(-1, 1, 1, 1)
    snr = (alpha / (1 - alpha)).flatten()
    expected = (snr.clamp(max=gamma) * wrong.square().mean(dim=(1, 2, 3))).mean()
    for prediction in (Prediction.EPSILON, Prediction.V):
        teacher = objective(prediction, min_snr_gamma=gamma)
        asked = teacher.question(latents, noise, timesteps)
        guessed_noise = noise - (alpha / (1 - alpha)).sqrt() * wrong  # what the same noisy latent and x0 + wrong imply
        guess = guessed_noise if prediction is Prediction.EPSILON else _v(alpha, guessed_noise, latents + wrong)
        torch.testing.assert_close(teacher.loss(asked, guess), expected, rtol=2e-3, atol=1e-6)


def _v(alpha: torch.Tensor, noise: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents


def test_the_loss_is_a_mean_that_counts_weigh() -> None:
    latents, noise, timesteps = drawn()
    teacher = objective()
    asked = teacher.question(latents, noise, timesteps)
    answer = asked.target + 2.0
    assert teacher.loss(asked, asked.target) == 0
    assert teacher.loss(asked, answer) == pytest.approx(4.0)
    counts = torch.tensor([1.0, 0.5, 0.0, 1.0, 0.5, 0.0])
    assert teacher.loss(asked, answer, counts) == pytest.approx(2.0)


@given(count=st.integers(1, 64), seed=st.integers(0, 2**32))
def test_timesteps_cover_all_of_them_evenly(count: int, seed: int) -> None:
    """One in each of ``count`` equal parts of 0 to 999."""
    found = objective().timesteps(count, torch.Generator().manual_seed(seed))
    assert found.shape == (count,) and found.dtype is torch.int64
    expected = torch.arange(count) * N / count
    lowest_first = found.sort().values
    assert (lowest_first >= expected.floor() - 1).all() and (lowest_first <= expected + N / count + 1).all()
    assert found.min() >= 0 and found.max() <= N - 1


@given(late=st.sampled_from([0.0, 0.25, 0.5]), last=st.sampled_from([0.0, 0.25, 0.5]), seed=st.integers(0, 1000))
def test_shares_of_late_and_last_timesteps(late: float, last: float, seed: int) -> None:
    count = 64
    found = objective(late_share=late, last_share=last).timesteps(count, torch.Generator().manual_seed(seed))
    at_the_end = int((found == N - 1).sum())
    everywhere = round(count * (1 - late - last))
    assert abs(at_the_end - count * last) <= 2
    noisy = int((found >= int(LATE_FROM * N)).sum())
    expected = count * (late + last) + everywhere * (1 - LATE_FROM)
    assert abs(noisy - expected) <= 2


def test_the_order_of_timesteps_in_a_batch_is_random() -> None:
    random = torch.Generator().manual_seed(0)
    firsts = torch.stack([objective().timesteps(8, random) for _ in range(400)]).float().mean(dim=0)
    assert firsts.min() > 430 and firsts.max() < 570


def test_offset_noise_is_one_value_a_channel() -> None:
    latents = torch.zeros(3, 4, 8, 8)
    seeded = torch.Generator().manual_seed
    plain, offset = objective(), objective(offset=0.5)
    difference = offset.ask(latents, seeded(1)).target - plain.ask(latents, seeded(1)).target
    assert (difference - difference.mean(dim=(2, 3), keepdim=True)).abs().max() < 1e-5
    assert 0.2 < difference.std() < 1.0


def test_the_same_seed_asks_the_same() -> None:
    latents = drawn()[0]
    first, again, other = (objective().ask(latents, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.noisy, again.noisy) and torch.equal(first.timesteps, again.timesteps)
    assert not torch.equal(first.noisy, other.noisy)


def test_a_request_may_choose_the_prediction_but_not_for_a_frozen_model() -> None:
    noise = Noise(prediction="V")
    assert Objective.of(Prediction.EPSILON, TABLE, noise).prediction is Prediction.V
    assert Objective.of(Prediction.V, TABLE, replace(noise, prediction="Model")).prediction is Prediction.V
    assert Objective.of_frozen(Prediction.V, TABLE, noise).prediction is Prediction.V
    with pytest.raises(RequestError, match="predicts epsilon and stays as it is"):
        Objective.of_frozen(Prediction.EPSILON, TABLE, noise)
