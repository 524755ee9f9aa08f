"""The rules of size, and the upscalers without weights against Pillow and against formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from webui.errors import RequestError
from webui.plugins.manager import Plugins
from webui.result import Pixels
from webui.upscalers import Upscaler, Work, find_upscaler, resized_latent, upscaled, upscaled_by

UPSCALERS = Plugins.load(None).upscalers
LANCZOS, NEAREST = Image.Resampling.LANCZOS, Image.Resampling.NEAREST
LATENT = torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(0))


def picture(width: int, height: int) -> Pixels:
    return np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pillow(pixels: Pixels, size: tuple[int, int], filter: Image.Resampling) -> Pixels:
    return np.array(Image.fromarray(pixels).resize(size, filter))


def named(name: str) -> Upscaler:
    return find_upscaler(name, UPSCALERS.values())


def test_the_names_and_their_order_are_those_people_know() -> None:
    pictures = [name for name, upscaler in UPSCALERS.items() if not upscaler.is_latent]
    latents = [name for name, upscaler in UPSCALERS.items() if upscaler.is_latent]
    assert pictures == ["None", "Lanczos", "Nearest"]
    assert latents == [
        "Latent",
        "Latent (antialiased)",
        "Latent (bicubic)",
        "Latent (bicubic antialiased)",
        "Latent (nearest)",
        "Latent (nearest-exact)",
    ]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    assert named("lanczos").name == "Lanczos"
    with pytest.raises(RequestError, match='no upscaler named "Lancsoz"; did you mean "Lanczos"'):
        named("Lancsoz")


@given(st.integers(8, 70), st.integers(8, 70), st.floats(1.0, 4.0))
def test_by_a_factor_sides_become_multiples_of_eight(width: int, height: int, scale: float) -> None:
    for name, filter in (("Lanczos", LANCZOS), ("Nearest", NEAREST)):
        expected = pixels = picture(width, height)
        size = (int(width * scale // 8 * 8), int(height * scale // 8 * 8))
        if scale == 1 or size[0] > width or size[1] > height:
            expected = pillow(pixels, (int(width * scale), int(height * scale)), filter)
        if expected.shape[1::-1] != size:
            expected = pillow(expected, size, LANCZOS)
        assert np.array_equal(upscaled_by(pixels, scale, named(name)), expected)


@pytest.mark.parametrize(
    ("name", "size", "steps"),
    [
        ("Lanczos", (96, 48), [((96, 48), LANCZOS)]),
        ("None", (97, 51), [((97, 51), LANCZOS)]),
        ("Nearest", (96, 48), [((96, 48), NEAREST)]),
        ("Nearest", (100, 40), [((100, 50), NEAREST), ((96, 48), LANCZOS), ((100, 40), LANCZOS)]),
        ("Nearest", (24, 12), [((24, 12), LANCZOS)]),
    ],
)
def test_to_a_size(name: str, size: tuple[int, int], steps: list[tuple[tuple[int, int], Image.Resampling]]) -> None:
    expected = pixels = picture(48, 24)
    for step, filter in steps:
        expected = pillow(expected, step, filter)
    assert np.array_equal(upscaled(pixels, *size, named(name)), expected)


@pytest.mark.parametrize(("scale", "runs"), [(1, 1), (1.5, 1), (2, 1), (2.5, 2), (4, 2), (5, 3), (9, 3), (0.5, 0)])
def test_a_model_is_run_until_the_picture_is_large_enough(scale: float, runs: int) -> None:
    calls = []

    def double(pixels: Pixels, scale: float, work: Work) -> Pixels:
        calls.append(pixels.shape)
        return pixels.repeat(2, 0).repeat(2, 1)

    result = upscaled_by(picture(16, 32), scale, Upscaler(name="Double", enlarge=double))
    assert len(calls) == runs
    assert result.shape == (32 * scale // 8 * 8, 16 * scale // 8 * 8, 3)


def test_latent_and_picture_upscalers_are_told_apart() -> None:
    with pytest.raises(RequestError, match="enlarges latents"):
        upscaled(picture(8, 8), 16, 16, named("Latent"))
    with pytest.raises(RequestError, match="enlarges pictures"):
        resized_latent(LATENT, 8, 8, named("Lanczos"))
    with pytest.raises(ValueError, match="either"):
        Upscaler(name="Neither")


@pytest.mark.parametrize(("tile", "overlap"), [(15, 0), (-1, 0), (192, -1), (64, 33)])
def test_a_tile_that_is_no_use_is_refused(tile: int, overlap: int) -> None:
    with pytest.raises(RequestError, match="no use"):
        Work(tile=tile, overlap=overlap)


# -- the latent modes, weight by weight: out[i] = sum over j of weight(i, j) * in[j] along each side -------------------


def cubic(a: float) -> Callable[[float], float]:
    """Keys 1981, equation 4 with its parameter a."""

    def weight(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    return weight


def triangle(x: float) -> float:
    return max(0.0, 1 - abs(x))


def matrix(small: int, large: int, kernel: Callable[[float], float], *, antialias: bool) -> torch.Tensor:
    """Weights (large, small); places beyond the border count as the border, or, antialiased, not at all."""
    weights = torch.zeros(large, small, dtype=torch.float64)
    for i in range(large):
        centre = (i + 0.5) * small / large - 0.5
        for j in range(math.floor(centre) - 2, math.floor(centre) + 4):
            if 0 <= j < small or not antialias:
                weights[i, min(max(j, 0), small - 1)] += kernel(centre - j)
    return weights / weights.sum(1, keepdim=True)


def chosen(small: int, large: int, offset: float) -> torch.Tensor:
    return torch.eye(small, dtype=torch.float64)[[int((i + offset) * small / large) for i in range(large)]]


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("Latent", lambda n, m: matrix(n, m, triangle, antialias=False)),
        ("Latent (antialiased)", lambda n, m: matrix(n, m, triangle, antialias=True)),
        ("Latent (bicubic)", lambda n, m: matrix(n, m, cubic(-0.75), antialias=False)),
        ("Latent (bicubic antialiased)", lambda n, m: matrix(n, m, cubic(-0.5), antialias=True)),
        ("Latent (nearest)", lambda n, m: chosen(n, m, 0.0)),
        ("Latent (nearest-exact)", lambda n, m: chosen(n, m, 0.5)),
    ],
)
@pytest.mark.parametrize("size", [(10, 14), (8, 9), (11, 20)])
def test_latent_modes(name: str, weights: Callable[[int, int], torch.Tensor], size: tuple[int, int]) -> None:
    result = resized_latent(LATENT, *size, named(name))
    expected = weights(5, size[0]) @ LATENT.double() @ weights(7, size[1]).T
    assert torch.allclose(result.double(), expected, atol=1e-5)
