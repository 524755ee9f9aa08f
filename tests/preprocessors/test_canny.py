from __future__ import annotations

import numpy as np
import pytest

from webui.errors import RequestError
from webui.plugins.manager import Plugins
from webui.preprocessors.canny import canny


def square(inside: int = 255) -> np.ndarray:
    """A square from 16 to 47 on black."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[16:48, 16:48] = inside
    return pixels


def test_it_is_registered_by_name() -> None:
    assert np.array_equal(Plugins.load(None).preprocessors["canny"].run(square(), {}), canny(square(), {}))


def test_the_edge_of_a_square_is_a_thin_ring() -> None:
    edges = canny(square(), {})
    assert edges.shape == (64, 64, 3)
    assert edges.dtype == np.uint8
    assert set(np.unique(edges)) == {0, 255}
    assert np.array_equal(edges[..., 0], edges[..., 2])
    across = np.flatnonzero(edges[32, :, 0])
    assert len(across) == 2
    assert abs(across[0] - 15.5) <= 1
    assert abs(across[1] - 47.5) <= 1
    assert not edges[20:44, 20:44].any()
    assert not edges[:12].any()


@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_plain_picture_has_no_edges(level: int) -> None:
    assert not canny(np.full((40, 56, 3), level, np.uint8), {}).any()


def test_a_step_is_an_edge_when_its_gradient_passes_the_thresholds() -> None:
    """A step by n levels has the Sobel sum 4 n: 30 levels are 120."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = 30
    assert canny(pixels, {"high_threshold": 119, "low_threshold": 50})[:, 14:18].any()
    assert not canny(pixels, {"high_threshold": 121, "low_threshold": 50}).any()


def test_a_colour_step_without_a_step_of_brightness_is_an_edge() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :16, 0] = pixels[:, 16:, 1] = 200
    assert canny(pixels, {})[5:-5, 14:18].any()


@pytest.mark.parametrize("options", [{"low": 3}, {"low_threshold": "x"}, {"high_threshold": -1}])
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        canny(square(), options)
