"""Si et al. 2023 (arXiv:2309.11497), second version: diffusers' Fourier filter, and the backbone's gain in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.utils.torch_utils import fourier_filter
from guidance_loaded import asked, contribution, file, request_for

from webui.model import Model
from webui.networks.unet import Openings

freeu = file("freeu")


@pytest.mark.parametrize("size", [(8, 8), (16, 12), (7, 9), (4, 4), (2, 2), (1, 3)])
@pytest.mark.parametrize("gain", [0.2, 1.5])
def test_the_skips_filter_is_that_of_diffusers(size: tuple[int, int], gain: float) -> None:
    skip = torch.randn((2, 3, *size), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(freeu.softened(skip, gain), fourier_filter(skip, threshold=1, scale=gain), atol=1e-5)


def test_a_flat_skip_is_multiplied_and_fine_detail_is_kept() -> None:
    flat = torch.full((1, 1, 8, 8), 3.0)
    checks = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2).float()[None, None] * 2 - 1
    assert torch.allclose(freeu.softened(flat, 0.2), flat * 0.2, atol=1e-6)
    assert torch.allclose(freeu.softened(checks, 0.2), checks, atol=1e-6)


@pytest.mark.parametrize("gain", [0.8, 1.4])
def test_half_of_the_backbone_follows_its_mean(gain: float) -> None:
    backbone = torch.randn((2, 6, 5, 4), generator=torch.Generator().manual_seed(2))
    found = freeu.strengthened(backbone, gain).numpy()
    for picture in range(2):
        values = backbone[picture].double().numpy()
        mean = values.mean(axis=0)
        alpha = (gain - 1) * (mean - mean.min()) / (mean.max() - mean.min()) + 1
        assert np.allclose(found[picture, :3], values[:3] * alpha, atol=1e-5)
        assert np.array_equal(found[picture, 3:], backbone[picture, 3:].numpy())


def test_a_flat_backbone_stays() -> None:
    flat = torch.ones((1, 4, 3, 3))
    assert torch.equal(freeu.strengthened(flat, 1.4), flat)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half_precision(dtype: torch.dtype) -> None:
    values = torch.randn((1, 4, 6, 6), generator=torch.Generator().manual_seed(3)).to(dtype)
    for changed in (freeu.strengthened(values, 1.3), freeu.softened(values, 0.3)):
        assert changed.dtype is dtype and bool(changed.isfinite().all())


def test_stages_are_told_by_their_channels(model: Model) -> None:
    """The tiny model has 16 channels at full size, 32 in the deepest level: only the second stage, 2 * 16, is there."""
    request = request_for()
    assert torch.equal(asked(model, contribution("FreeU", model, request, b2=1.0, s2=1.0)), asked(model))
    part = contribution("FreeU", model, request, b2=1.4, s2=0.2)
    assert isinstance(part.openings, Openings)
    (change,) = part.openings.rising_changes
    seen = []

    def spy(number: int, rising: torch.Tensor, skip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((number, rising.shape[1]))
        return change(number, rising, skip)

    watched = type(part)(Openings(rising_changes=(spy,)))
    assert torch.equal(asked(model, watched), asked(model, part))
    assert {channels for _, channels in seen} == {16, 32}
    for _, channels in seen:
        rising, skip = torch.rand((1, channels, 4, 4)), torch.rand((1, 16, 4, 4))
        changed = change(0, rising, skip)
        assert all(torch.equal(one, other) for one, other in zip(changed, (rising, skip), strict=True)) is (
            channels == 16
        )
