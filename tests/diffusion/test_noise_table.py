from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.diffusion.schedules import NoiseTable

TABLE = NoiseTable.scaled_linear()
ZERO_SNR = TABLE.zero_terminal_snr()


def test_published_values_of_stable_diffusion() -> None:
    assert TABLE.sigma_min == pytest.approx(0.0291672, abs=5e-8)
    assert TABLE.sigma_max == pytest.approx(14.614641, abs=5e-7)
    assert TABLE.alphas_cumprod[-1] == pytest.approx(0.00466, abs=5e-6)
    assert TABLE.alphas_cumprod[0] == pytest.approx(1 - 0.00085)
    assert TABLE.sigmas.shape == (1000,) and TABLE.sigmas.dtype == np.float64


def test_alphas_equal_diffusers() -> None:
    import diffusers  # takes seconds: only where it is needed

    theirs = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=False
    )
    np.testing.assert_allclose(TABLE.alphas_cumprod, theirs.alphas_cumprod.numpy(), rtol=2e-5)
    rescaled = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True
    )
    np.testing.assert_allclose(ZERO_SNR.alphas_cumprod[:-1], rescaled.alphas_cumprod.numpy()[:-1], rtol=1e-3, atol=1e-8)


def test_zero_terminal_snr_keeps_the_first_and_all_but_silences_the_last() -> None:
    assert ZERO_SNR.alphas_cumprod[0] == pytest.approx(TABLE.alphas_cumprod[0], rel=1e-12)
    assert ZERO_SNR.alphas_cumprod[-1] == 4.8973451890853435e-08
    assert ZERO_SNR.sigma_max == pytest.approx(4518.76, abs=0.01)
    assert bool((np.diff(ZERO_SNR.alphas_cumprod) < 0).all())


@pytest.mark.parametrize("table", [TABLE, ZERO_SNR], ids=["sd", "zero terminal snr"])
def test_exact_on_every_entry(table: NoiseTable) -> None:
    for t, sigma in enumerate(table.sigmas.tolist()):
        assert table.sigma(t) == sigma
        assert table.timestep(sigma) == t


@given(st.floats(0, 999), st.booleans())
def test_timestep_inverts_sigma(t: float, zero_snr: bool) -> None:
    table = ZERO_SNR if zero_snr else TABLE
    assert table.timestep(table.sigma(t)) == pytest.approx(t, abs=1e-9)


@given(st.floats(0, 999))
def test_sigma_is_linear_in_its_logarithm(t: float) -> None:
    expected = math.exp(np.interp(t, np.arange(1000), np.log(TABLE.sigmas)))
    assert TABLE.sigma(t) == pytest.approx(expected, rel=1e-12)


def test_beyond_the_table_is_clipped() -> None:
    assert TABLE.timestep(1e-4) == 0
    assert TABLE.timestep(100.0) == 999
    assert TABLE.sigma(-3) == TABLE.sigma_min
    assert TABLE.sigma(1200) == TABLE.sigma_max


def test_a_downcast_table_is_that_of_fp16_arithmetic() -> None:
    import torch

    alphas = torch.tensor(TABLE.alphas_cumprod).half()
    levels = (((1 - alphas) / alphas) ** 0.5).double().numpy()  # as k-diffusion's DiscreteEpsDDPMDenoiser
    np.testing.assert_allclose(TABLE.downcast().sigmas, levels, rtol=1e-3)
    assert np.abs(TABLE.downcast().sigmas / TABLE.sigmas - 1).max() > 1e-4


def test_whole_timesteps_are_the_nearest_ones() -> None:
    table = replace(TABLE, whole_timesteps=True)
    for timestep, nearest in ((0.0, 0), (17.4, 17), (17.6, 18), (998.7, 999)):
        assert table.timestep(TABLE.sigma(timestep)) == nearest
    assert table.sigma(17.4) == TABLE.sigma(17.4), "schedules may still lie between"
    assert table.zero_terminal_snr().whole_timesteps
