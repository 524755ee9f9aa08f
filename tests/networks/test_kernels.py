from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from webui.networks import kernels


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 2),
    height=st.integers(1, 70),
    width=st.integers(1, 20),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels_last=st.booleans(),
)
def test_winograd_is_the_direct_convolution(
    batch: int, height: int, width: int, channels: tuple[int, int], channels_last: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels[0], height, width, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    weight = torch.randn(channels[1], channels[0], 3, 3, generator=generator)
    bias = torch.randn(channels[1], generator=generator)
    with torch.inference_mode():
        found = kernels._winograd(x, weight, bias)
    expected = torch.nn.functional.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=3e-5)


@pytest.mark.parametrize("size", [(32, 32), (33, 41)])
def test_a_wide_convolution_is_nearly_as_exact_as_torchs_own(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = kernels.Conv3x3(320, 256)
    x = torch.randn(1, 320, *size, generator=generator)
    with torch.inference_mode():
        assert kernels._prefers_winograd(x, layer.weight)
        found = layer(x)
        direct = torch.nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
        exact = torch.nn.functional.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
    assert (found - exact).norm() < 3 * (direct - exact).norm()


def test_a_convolution_of_a_picture_alone_is_that_of_the_picture_in_a_batch() -> None:
    layer = kernels.Conv3x3(256, 256)
    x = torch.randn(3, 256, 32, 32)
    with torch.inference_mode():
        assert torch.equal(layer(x)[1:2], layer(x[1:2]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_the_formula(dtype: torch.dtype, bias: bool) -> None:
    layer = kernels.Linear(48, 80, bias=bias).to(dtype)
    x = torch.randn(2, 7, 48).to(dtype)
    expected = x.double() @ layer.weight.double().T + (layer.bias.double() if bias else 0)
    with torch.inference_mode():
        found = layer(x).double()
    torch.testing.assert_close(
        found, expected, rtol=1e-2 if dtype is torch.bfloat16 else 1e-4, atol=1e-2 if dtype is torch.bfloat16 else 1e-5
    )


def test_gradients_flow() -> None:
    layer = torch.nn.Sequential(kernels.Conv3x3(256, 256), torch.nn.Flatten(2), kernels.Linear(1024, 2))
    layer(torch.randn(1, 256, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_arranging_changes_no_value() -> None:
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.Conv2d(5, 2, 1))
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    kernels.arrange(layer)
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    assert layer[0].weight.is_contiguous(memory_format=torch.channels_last)
