"""Lin et al. 2023 (arXiv:2305.08891), equations 14 to 16, written out in numpy for each picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from guidance_loaded import SIGMA, X, file, guiding_of

from webui.diffusion.prediction import Prediction

RNG = torch.Generator().manual_seed(5)
COND, UNCOND = torch.randn((2, 4, 8, 8), generator=RNG), torch.randn((2, 4, 8, 8), generator=RNG)


@pytest.mark.parametrize("phi", [0.3, 0.7, 1.0])
def test_the_network_output_gets_the_prompts_deviation_back(phi: float) -> None:
    guiding = guiding_of(COND, UNCOND, 7.5)
    found = file("rescale").rescaling(guiding, phi).numpy()
    for picture in range(2):
        x = X[picture].double().numpy()
        positive, guided = ((x - clean[picture].double().numpy()) / SIGMA for clean in (COND, guiding.guided))
        rescaled = guided * (positive.std(ddof=1) / guided.std(ddof=1))  # equations 14 and 15
        final = phi * rescaled + (1 - phi) * guided  # equation 16
        assert np.allclose(found[picture], x - SIGMA * final, atol=1e-4)


def test_a_v_prediction_is_rescaled_as_v() -> None:
    guiding = guiding_of(COND, UNCOND, 7.5, prediction=Prediction.V)
    found = file("rescale").rescaling(guiding, 1.0)
    alpha = 1 / (1 + SIGMA**2)

    def velocity(clean: torch.Tensor) -> torch.Tensor:
        """sqrt(a) * noise - sqrt(1 - a) * x0, arXiv:2202.00512, appendix D."""
        return alpha**0.5 * (X - clean) / SIGMA - (1 - alpha) ** 0.5 * clean

    deviations = velocity(found).std(dim=(1, 2, 3)), velocity(COND).std(dim=(1, 2, 3))
    assert torch.allclose(*deviations, rtol=1e-4)
    assert not torch.allclose(velocity(guiding.guided).std(dim=(1, 2, 3)), deviations[1], rtol=0.1)


def test_a_level_without_noise_is_left_alone() -> None:
    guiding = guiding_of(COND, UNCOND, 7.5, sigma=0.0)
    assert torch.equal(file("rescale").rescaling(guiding, 1.0), guiding.guided)
