"""Saharia et al. 2022 (arXiv:2205.11487), section 2.3, and the mimic scale, each written out in numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from guidance_loaded import asked, contribution, file, guiding_of, request_for
from hypothesis import given
from hypothesis import strategies as st

from webui.model import Model

dynamic = file("dynamic_thresholding")
Mode, Options = dynamic.Mode, dynamic.Options
RNG = torch.Generator().manual_seed(6)
COND, UNCOND = torch.randn((2, 4, 8, 8), generator=RNG), torch.randn((2, 4, 8, 8), generator=RNG)
GUIDING = guiding_of(COND, UNCOND, 20.0)


def found(guiding: Any = GUIDING, share: float = 1.0, **options: Any) -> np.ndarray:
    values = dynamic.dynamic_thresholding(guiding, Options(**options), share)
    return np.asarray(values.double())


def targets(mimic_scale: float, cfg_scale: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    cond, uncond = COND.double().numpy(), UNCOND.double().numpy()
    return uncond + mimic_scale * (cond - uncond), uncond + cfg_scale * (cond - uncond)


@pytest.mark.parametrize("percentile", [100.0, 99.5, 90.0])
def test_with_a_range_of_1_it_is_imagens(percentile: float) -> None:
    """x0 = clip(x0, -s, s) / s with s = max(1, percentile of abs(x0)), for channels whose mean is 0."""
    values = torch.randn((1, 3, 8, 8), generator=torch.Generator().manual_seed(9)) * 2
    values = values - values.mean(dim=(2, 3), keepdim=True)
    unit = torch.zeros_like(values)
    unit[..., 0, 0], unit[..., 0, 1] = 1.0, -1.0  # mean 0, largest distance 1
    result = dynamic.thresholded(values, unit, Options(percentile=percentile)).numpy()
    for channel in range(3):
        x0 = values[0, channel].double().numpy()
        s = max(1.0, np.percentile(np.abs(x0), percentile))
        assert np.allclose(result[0, channel], np.clip(x0, -s, s) / s, atol=1e-5)


@pytest.mark.parametrize("percentile", [100.0, 95.0])
@pytest.mark.parametrize("phi", [1.0, 0.4])
def test_around_the_mean_each_channel_gets_the_mimics_range(percentile: float, phi: float) -> None:
    mimic, guided = targets(7.0)
    result = found(mimic_scale=7.0, percentile=percentile, phi=phi)
    for place in np.ndindex(2, 4):
        centred = guided[place] - guided[place].mean()
        bound = np.abs(mimic[place] - mimic[place].mean()).max()
        s = max(bound, np.percentile(np.abs(centred), percentile))
        expected = np.clip(centred, -s, s) / s * bound + guided[place].mean()
        assert np.allclose(result[place], phi * expected + (1 - phi) * guided[place], atol=1e-3)


def test_all_channels_of_a_picture_may_share_one_range() -> None:
    mimic, guided = targets(7.0)
    result = found(mimic_scale=7.0, separate_channels=False)
    for picture in range(2):
        means = guided[picture].mean(axis=(1, 2), keepdims=True)
        bound = np.abs(mimic[picture] - mimic[picture].mean(axis=(1, 2), keepdims=True)).max()
        s = max(bound, np.abs(guided[picture] - means).max())
        assert np.allclose(result[picture], (guided[picture] - means) / s * bound + means, atol=1e-3)


@pytest.mark.parametrize("startpoint", ["MEAN", "ZERO"])
def test_deviations_may_be_matched_instead(startpoint: str) -> None:
    mimic, guided = targets(7.0)
    result = found(mimic_scale=7.0, variability="STD", startpoint=startpoint, phi=1.0)
    for place in np.ndindex(2, 4):
        ratio = mimic[place].std() / guided[place].std()
        mean = guided[place].mean() if startpoint == "MEAN" else 0.0
        assert np.allclose(result[place], (guided[place] - mean) * ratio + mean, atol=1e-3)


@pytest.mark.parametrize(
    ("mode", "at_0", "at_half", "at_1"),
    [
        ("Constant", 1, 1, 1),
        ("Linear Down", 1, 0.5, 0),
        ("Cosine Down", 1, math.sqrt(0.5), 0),
        ("Half Cosine Down", 1, math.cos(0.5), math.cos(1)),
        ("Linear Up", 0, 0.5, 1),
        ("Cosine Up", 0, 1 - math.sqrt(0.5), 1),
        ("Half Cosine Up", 0, 1 - math.cos(0.5), 1 - math.cos(1)),
        ("Power Up", 0, 1 / 8, 1),
        ("Power Down", 1, 7 / 8, 0),
        ("Linear Repeating", 1, 0, 1),
        ("Cosine Repeating", 1, 0, 1),
        ("Sawtooth", 0, 0.5, 0),
    ],
)
def test_scales_follow_their_mode(mode: str, at_0: float, at_half: float, at_1: float) -> None:
    for done, expected in ((0.0, at_0), (0.5, at_half), (1.0, at_1)):
        scale = dynamic.scheduled(10.0, mode, 2.0, done, 3.0)
        assert scale == pytest.approx(2.0 + 8.0 * expected, abs=1e-9)


@given(
    mode=st.sampled_from(list(Mode)),
    done=st.floats(0, 1),
    value=st.floats(0.1, 15),
    scale=st.floats(0, 30),
    low=st.floats(0, 30),
)
def test_scales_stay_between_their_ends(mode: str, done: float, value: float, scale: float, low: float) -> None:
    found = dynamic.scheduled(scale, mode, low, done, value)
    assert min(scale, low) - 1e-9 <= found <= max(scale, low) + 1e-9


def test_the_cfg_scale_follows_the_call() -> None:
    """At call 5 of 11 half of the sampling is done: Linear Down makes 10 of a scale of 20."""
    guiding = guiding_of(COND, UNCOND, 20.0, call=5)
    result = found(guiding, cfg_mode="Linear Down", phi=0.0)
    assert np.allclose(result, targets(0.0, 10.0)[1], atol=1e-4)


def test_what_other_guides_did_stays() -> None:
    moved = guiding_of(COND, UNCOND, 20.0, guided=GUIDING.guided + 5, call=5)
    still = guiding_of(COND, UNCOND, 20.0, call=5)
    options = {"mimic_scale": 7.0, "cfg_mode": "Linear Down"}
    assert np.allclose(found(moved, **options), found(still, **options) + 5, atol=1e-3)


def test_a_sampler_that_divides_the_scale_divides_the_mimic_scale_too() -> None:
    divided = guiding_of(COND, UNCOND, 20.0 / 12.5)
    bound = np.abs(targets(7.0 / 12.5)[0] - targets(7.0 / 12.5)[0].mean(axis=(2, 3), keepdims=True)).max(axis=(2, 3))
    result = found(divided, share=1 / 12.5, mimic_scale=7.0)
    reached = np.abs(result - result.mean(axis=(2, 3), keepdims=True)).max(axis=(2, 3))
    assert np.allclose(reached, bound, atol=1e-3)


def test_answers_without_any_range_are_no_error() -> None:
    flat = torch.ones((1, 4, 8, 8))
    for variability in ("AD", "STD"):
        for startpoint in ("MEAN", "ZERO"):
            options = Options(variability=variability, startpoint=startpoint)
            assert bool(dynamic.thresholded(flat, flat, options).isfinite().all())


def test_the_range_is_at_most_that_of_the_mimic_scale_in_a_true_call(model: Model) -> None:
    part = contribution("Dynamic thresholding", model, request_for(), mimic_scale=2.0)
    strong = asked(model, part)
    weak = asked(model, cfg_scale=2.0)

    def reach(latent: torch.Tensor) -> torch.Tensor:
        return (latent - latent.mean(dim=(2, 3), keepdim=True)).abs().amax(dim=(2, 3))

    plain, bound = reach(asked(model)), reach(weak)
    assert torch.allclose(reach(strong), torch.minimum(plain, bound), atol=1e-3)
    assert bool((plain > bound + 1e-2).any())
