from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import UNET
from tomesd import merge as tomesd

from webui.networks.token_merging import merging
from webui.networks.unet import Openings, UNet


def tokens(batch: int, height: int, width: int, channels: int = 8) -> torch.Tensor:
    return torch.randn(batch, height * width, channels, generator=torch.Generator().manual_seed(3))


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 3), height=st.integers(2, 13), width=st.integers(2, 13), ratio=st.floats(0.02, 0.9))
def test_merging_is_the_published_one_without_its_random_choice(
    batch: int, height: int, width: int, ratio: float
) -> None:
    x = tokens(batch, height, width)
    found = merging(x, (height, width), ratio)
    count = int(height * width * ratio)
    merge, unmerge = tomesd.bipartite_soft_matching_random2d(x, width, height, 2, 2, count, no_rand=True)
    if found is None:
        assert count == 0
        return
    other = tokens(batch, height, width, 5) * 2
    fewer = found.merge(other)  # its order is free: attention does not ask for it
    assert fewer.shape == merge(other).shape
    torch.testing.assert_close(found.unmerge(fewer), unmerge(merge(other)))


def test_tokens_that_are_alike_are_merged_without_a_loss() -> None:
    squares = torch.randn(1, 2, 2, 8).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    x = squares.flatten(1, 2)  # each square of a latent of 4 x 4 has tokens of one kind
    found = merging(x, (4, 4), 0.5)
    assert found is not None
    fewer = found.merge(x)
    assert fewer.shape == (1, 8, 8)
    torch.testing.assert_close(found.unmerge(fewer), x)


def test_no_more_than_three_quarters_go() -> None:
    found = merging(tokens(1, 8, 8), (8, 8), 0.9)
    assert found is not None
    assert found.merge(tokens(1, 8, 8)).shape[1] == 16


@pytest.mark.parametrize(("size", "ratio"), [((4, 4), 0.05), ((1, 9), 0.5), ((4, 4), 0.0)])
def test_too_few_tokens_stay_as_they_are(size: tuple[int, int], ratio: float) -> None:
    assert merging(tokens(1, *size), size, ratio) is None


def test_a_unet_merges_where_the_latent_has_its_full_size_only() -> None:
    torch.manual_seed(0)
    unet = UNet(UNET).eval()  # its attention is at full resolution
    x, timesteps, context = torch.randn(2, 4, 8, 8), torch.tensor([10.0, 500.0]), torch.randn(2, 77, 32)
    seen = []
    for layer in unet.modules():
        if type(layer).__name__ == "_Attention":
            layer.register_forward_hook(lambda _, arguments, output: seen.append(arguments[0].shape[1]))
    with torch.inference_mode():
        plain = unet(x, timesteps, context)
        whole, seen[:] = list(seen), []
        merged = unet(x, timesteps, context, Openings(merged_tokens=0.5))
        fewer, seen[:] = list(seen), []
        assert torch.equal(unet(x, timesteps, context), plain)
    assert set(whole) == {64, 16}
    assert fewer == [32 if count == 64 and number % 2 == 0 else count for number, count in enumerate(whole)]
    assert not torch.equal(merged, plain)
