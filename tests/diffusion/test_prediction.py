from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from webui.diffusion.prediction import Prediction, c_in, denoised, network_output


@given(st.floats(1e-3, 5e3), st.integers(0, 2**31))
@pytest.mark.parametrize("prediction", list(Prediction))
def test_a_perfect_answer_gives_the_clean_latent_back(prediction: Prediction, sigma: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn((2, 1, 4, 2, 3), generator=generator, dtype=torch.float64)
    a = 1 / (1 + sigma**2)
    perfect = {
        Prediction.EPSILON: noise,
        Prediction.V: math.sqrt(a) * noise - math.sqrt(1 - a) * clean,
    }[prediction]
    answer = denoised(prediction, clean + sigma * noise, sigma, perfect)
    torch.testing.assert_close(answer, clean, rtol=0, atol=1e-11 * (1 + sigma))


def test_input_scaling_gives_unit_variance() -> None:
    for sigma in (0.03, 1.0, 14.6, 4518.8):
        assert c_in(sigma) ** 2 * (1 + sigma**2) == pytest.approx(1)


def test_keeps_the_dtype_of_x() -> None:
    x, output = torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2, dtype=torch.bfloat16)
    assert {denoised(prediction, x, 1.0, output).dtype for prediction in Prediction} == {torch.float32}


@pytest.mark.parametrize("prediction", list(Prediction))
@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
def test_the_output_is_found_again_in_the_clean_latent(prediction: Prediction, sigma: float) -> None:
    x, output = torch.randn(2, 2, 4, 3, 3, dtype=torch.float64)
    clean = denoised(prediction, x, sigma, output)
    torch.testing.assert_close(network_output(prediction, x, sigma, clean), output)
