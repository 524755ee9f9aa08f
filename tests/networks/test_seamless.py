from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny_model import UNET, VAE
from torch import Tensor, nn

from webui.networks import kernels
from webui.networks.seamless import seamless
from webui.networks.unet import UNet
from webui.networks.vae import AutoencoderKL


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def bits(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def turned(tensor: Tensor, rows: int, columns: int) -> Tensor:
    return tensor.roll((rows, columns), dims=(2, 3))


def test_a_seamless_decoder_does_not_know_where_the_picture_begins() -> None:
    torch.manual_seed(0)
    plain = AutoencoderKL(VAE).eval()
    vae, latent = seamless(plain), torch.randn(1, 4, 6, 9)
    moved = vae.decode(turned(latent, 2, 5))
    torch.testing.assert_close(moved, turned(vae.decode(latent), 16, 40), rtol=0, atol=1e-4)
    assert (plain.decode(turned(latent, 2, 5)) - turned(plain.decode(latent), 16, 40)).abs().max() > 0.01


def test_a_seamless_unet_does_not_know_where_the_picture_begins() -> None:
    torch.manual_seed(0)
    plain = UNet(UNET).eval()
    unet, x = seamless(plain), torch.randn(2, 4, 8, 12)
    timesteps, context = torch.tensor([10.0, 500.0]), torch.randn(2, 77, UNET.context_channels)
    found = unet(turned(x, 2, 6), timesteps, context)
    torch.testing.assert_close(found, turned(unet(x, timesteps, context), 2, 6), rtol=0, atol=1e-4)
    assert (plain(turned(x, 2, 6), timesteps, context) - turned(plain(x, timesteps, context), 2, 6)).abs().max() > 0.01


def test_the_network_it_was_made_of_stays_as_it_was_and_lends_its_weights() -> None:
    torch.manual_seed(0)
    plain = AutoencoderKL(VAE).eval()
    before, latent = bits(plain), torch.randn(1, 4, 5, 7)
    picture = plain.decode(latent)
    vae = seamless(plain)
    assert all(one is other for one, other in zip(plain.parameters(), vae.parameters(), strict=True))
    assert not torch.equal(vae.decode(latent), picture)
    assert torch.equal(plain.decode(latent), picture)
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())


def test_the_encoders_own_zeros_at_right_and_bottom_stay() -> None:
    torch.manual_seed(0)
    vae = seamless(AutoencoderKL(VAE).eval())
    halve = next(layer for name, layer in vae.named_modules() if name.endswith("down.0.downsample"))
    x = torch.randn(1, 16, 8, 8)
    expected = nn.functional.conv2d(nn.functional.pad(x, (0, 1, 0, 1)), halve.conv.weight, halve.conv.bias, stride=2)
    torch.testing.assert_close(halve(x), expected)


@pytest.mark.parametrize("size", [(32, 32), (33, 41)])
def test_a_wide_convolution_takes_the_quick_way_around_the_edges_too(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = kernels.Conv3x3(256, 256)
    layer.padding_mode = "circular"
    x = torch.randn(1, 256, *size)
    assert kernels._prefers_winograd(x, layer.weight)
    around = nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
    torch.testing.assert_close(layer(x), nn.functional.conv2d(around, layer.weight, layer.bias), rtol=0, atol=2e-4)
