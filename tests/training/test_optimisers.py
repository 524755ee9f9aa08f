"""AdamW and Muon against torch's and closed forms; the learning rate; the moving average; a state taken up again."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from webui.training.optimisers import ADAM_BETAS, MOMENTUM, Learner, orthogonal, rate_at
from webui.training.request import Optimiser

NAMES = {"unet.matrix": (16, 24), "unet.bias": (16,), "text.matrix": (8, 12), "text.bias": (5,)}


def parameters(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    return {name: nn.Parameter(torch.randn(shape, generator=random).to(dtype)) for name, shape in NAMES.items()}


def gradients(step: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1000 + step)
    return {name: torch.randn(shape, generator=random) for name, shape in NAMES.items()}


def learner(dtype: torch.dtype = torch.float32, **settings: object) -> Learner:
    return Learner(parameters(dtype=dtype), {}, Optimiser(**{"clip": 0.0, **settings}))  # type: ignore[arg-type]


def test_adamw_is_torchs_with_the_text_encoders_share() -> None:
    ours = learner(text_rate=0.25, weight_decay=0.1)
    theirs = parameters()
    groups = [
        {"params": [theirs["unet.matrix"], theirs["unet.bias"]], "share": 1.0},
        {"params": [theirs["text.matrix"], theirs["text.bias"]], "share": 0.25},
    ]
    oracle = torch.optim.AdamW(groups, betas=ADAM_BETAS, weight_decay=0.1)
    for step in range(6):
        rate = 0.01 * (step + 1)
        ours.step(gradients(step), rate)
        for name, gradient in gradients(step).items():
            theirs[name].grad = gradient
        for group in oracle.param_groups:
            group["lr"] = rate * group["share"]
        oracle.step()
    for name, tensor in ours.trained.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-6)


def test_muon_by_hand_on_a_matrix_and_adam_on_the_rest() -> None:
    ours = learner(name="Muon", other_rate=0.5, text_rate=0.25, weight_decay=0.1)
    first = parameters()
    momentum = torch.zeros(NAMES["text.matrix"])
    expected = first["text.matrix"].detach().clone()
    bias = nn.Parameter(first["unet.bias"].detach().clone())
    oracle = torch.optim.AdamW([bias], lr=0.02 * 0.5, betas=ADAM_BETAS, weight_decay=0.1)
    for step in range(4):
        ours.step(gradients(step), 0.02)
        gradient = gradients(step)["text.matrix"]
        momentum = MOMENTUM * momentum + gradient
        nesterov = gradient + MOMENTUM * momentum
        rate = 0.02 * 0.25
        expected = expected * (1 - rate * 0.1) - rate * orthogonal(nesterov[None])[0]
        bias.grad = gradients(step)["unet.bias"]
        oracle.step()
    torch.testing.assert_close(ours.trained["text.matrix"].detach(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.trained["unet.bias"], bias, rtol=1e-5, atol=1e-6)


@settings(max_examples=30)
@given(rows=st.integers(8, 40), columns=st.integers(8, 40), seed=st.integers(0, 1000))
def test_orthogonal_has_singular_values_near_one_and_the_same_directions(rows: int, columns: int, seed: int) -> None:
    """The quintic pushes singular values into about 0.7 to 1.2 (Jordan et al.), the smallest ones only part of it."""
    random = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=random)
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    found = u.T @ orthogonal(matrix[None])[0] @ v.T
    large = values > 0.05 * values.norm()
    diagonal = found.diagonal()[large]
    assert diagonal.min() > 0.6 and diagonal.max() < 1.3
    assert (found - found.diagonal().diag()).abs().max() < 0.1


def test_orthogonal_does_not_know_the_size_of_what_it_is_given() -> None:
    matrix = torch.randn(1, 12, 20, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(orthogonal(matrix), orthogonal(1e-3 * matrix), atol=0.05)
    assert torch.allclose(orthogonal(matrix.transpose(1, 2)), orthogonal(matrix).transpose(1, 2), atol=0.02)


@pytest.mark.parametrize("schedule", ["Constant", "Linear", "Cosine"])
def test_the_learning_rate_of_a_run(schedule: str) -> None:
    optimiser = Optimiser(rate=0.1, schedule=schedule, warmup=9, final=0.2)
    steps = 1000
    assert [rate_at(optimiser, step, steps) / rate_at(optimiser, 9, steps) for step in range(9)] == pytest.approx(
        [(step + 1) / 10 for step in range(9)], rel=0.02
    )
    half = {"Constant": 1.0, "Linear": 0.5, "Cosine": 0.5 * (1 + math.cos(math.pi / 2))}[schedule]
    assert rate_at(optimiser, 500, steps) == pytest.approx(0.1 * (0.2 + 0.8 * half))
    last = 0.1 if schedule == "Constant" else 0.02
    assert rate_at(optimiser, steps, steps) == pytest.approx(last)
    rates = [rate_at(optimiser, step, steps) for step in range(9, steps)]
    assert rates == sorted(rates, reverse=True)


def test_without_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert rate_at(Optimiser(rate=0.1, warmup=0), 0, 100) == 0.1


def test_the_moving_average() -> None:
    """m <- d m + (1 - d) w with d = min(decay, (1 + n) / (10 + n))."""
    ours = learner(ema=0.5)
    expected = {name: tensor.detach().clone() for name, tensor in ours.trained.items()}
    for step in range(12):
        ours.step(gradients(step), 0.1)
        decay = min(0.5, (2 + step) / (11 + step))
        expected = {name: decay * mean + (1 - decay) * ours.masters[name] for name, mean in expected.items()}
    for name, mean in expected.items():
        torch.testing.assert_close(ours.averages[name], mean, rtol=1e-5, atol=1e-6)
    ours.write(averaged=True)
    assert all(torch.equal(tensor, ours.averages[name]) for name, tensor in ours.trained.items())
    ours.write()
    assert all(torch.equal(tensor, ours.masters[name]) for name, tensor in ours.trained.items())


def test_the_gradient_is_bounded_and_its_norm_told() -> None:
    whole = torch.cat([gradient.flatten() for gradient in gradients(0).values()])
    ours, scaled = learner(clip=0.5), learner()
    assert ours.step(gradients(0), 0.1) == pytest.approx(float(whole.norm()), rel=1e-5)
    scaled.step({name: gradient * (0.5 / whole.norm()) for name, gradient in gradients(0).items()}, 0.1)
    for name, tensor in ours.trained.items():
        torch.testing.assert_close(tensor, scaled.trained[name])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_changes_nothing(bad: float) -> None:
    ours = learner(ema=0.9)
    before = {name: tensor.clone() for name, tensor in ours.state().items()}
    wrong = gradients(0)
    wrong["text.bias"][0] = bad
    assert not math.isfinite(ours.step(wrong, 0.1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state().items())


def test_masters_keep_what_narrow_tensors_round_away() -> None:
    exact = {name: tensor.detach() for name, tensor in parameters().items()}
    ours = Learner(parameters(dtype=torch.bfloat16), exact, Optimiser(clip=0.0))
    wide = learner()
    for step in range(5):
        ours.step(gradients(step), 1e-5)
        wide.step(gradients(step), 1e-5)
    for name, tensor in ours.trained.items():
        assert torch.equal(ours.masters[name], wide.masters[name])
        assert tensor.dtype is torch.bfloat16 and torch.equal(tensor, wide.masters[name].bfloat16())


@pytest.mark.parametrize("name", ["AdamW", "Muon"])
@pytest.mark.parametrize("before", [0, 3])
def test_a_state_taken_up_goes_on_to_the_same_bits(name: str, before: int) -> None:
    whole = learner(name=name, ema=0.9, clip=1.0)
    for step in range(before):
        whole.step(gradients(step), 0.05)
    state = {key: tensor.clone() for key, tensor in whole.state().items()}
    resumed = learner(name=name, ema=0.9, clip=1.0)
    resumed.step(gradients(77), 0.3)  # something to be forgotten
    resumed.restore(state)
    for step in range(before, before + 3):
        assert whole.step(gradients(step), 0.05) == resumed.step(gradients(step), 0.05)
    assert whole.state().keys() == resumed.state().keys()
    assert all(torch.equal(tensor, resumed.state()[key]) for key, tensor in whole.state().items())
