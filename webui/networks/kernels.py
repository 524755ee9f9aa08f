"""How linear layers and convolutions are computed on a CPU: the same sums by a faster way than torch's default.

Measured on random SD1.5 weights at 512 x 512 (``benchmarks/unet_step.py``).  Linear layers by oneDNN instead of BLAS
take 0.87 of the time in fp32 and 0.96 in bf16.  In fp32, 3 x 3 convolutions of many channels by Winograd's minimal
filtering take 0.55 to 0.67.  Convolution weights stored channels last save a copy of each at every call, 2 GB a step in
fp32.  Where a gradient is asked for, everything is torch's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HAS_ONEDNN = bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_ONEDNN_DTYPES = (
    (torch.float32, torch.bfloat16)
    if _HAS_ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    else (torch.float32,)
)
# Fewer channels and the transforms cost what the products save; fewer pixels and those of the weights do.
_WINOGRAD_CHANNELS = 256
_WINOGRAD_PIXELS = 1024
_TILE_ROWS = 16  # rows of 2 x 2 output tiles worked on together, so that intermediate tensors stay small


class Linear(nn.Linear):
    """``nn.Linear`` by :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """``input`` (..., in_features) times the weight, plus the bias: (..., out_features)."""
        return linear(input, self.weight, self.bias)


class Conv3x3(nn.Conv2d):
    """A 3 x 3 convolution that keeps height and width; it holds the parameters of ``nn.Conv2d``.

    Beyond the edges are zeros or, with ``padding_mode`` "circular", the opposite edges.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Build the layer; on the ``meta`` device no memory is touched."""
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        """(B, out_channels, H, W) from (B, in_channels, H, W)."""
        if self.bias is None or not _prefers_winograd(input, self.weight):
            return super().forward(input)
        if self.padding_mode == "zeros":
            return _winograd(input, self.weight, self.bias)
        around = F.pad(input, (1, 1, 1, 1), mode=self.padding_mode)
        return _winograd(around, self.weight, self.bias)[:, :, 1:-1, 1:-1]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear``; on a CPU, and where no gradient is asked for, by oneDNN."""
    if x.device.type != "cpu" or x.dtype not in _ONEDNN_DTYPES or not _HAS_ONEDNN or torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    return _product(x, weight, bias)


def arrange(network: nn.Module) -> None:
    """Store each convolution's weights channels last, one after another, so that no call has to copy them.

    Values, names and shapes stay.  To be called once, after the weights were assigned; nothing depends on it but speed.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight.detach().contiguous(memory_format=torch.channels_last)
            layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def _prefers_winograd(x: Tensor, weight: Tensor) -> bool:
    """Whether Winograd pays; the batch size does not count, so that a picture alone and in a batch go the same way."""
    return (
        x.device.type == "cpu"
        and x.dtype is torch.float32
        and _HAS_ONEDNN
        and not torch.is_grad_enabled()
        and min(weight.shape[:2]) >= _WINOGRAD_CHANNELS
        and x.shape[2] * x.shape[3] >= _WINOGRAD_PIXELS
    )


def _winograd(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution by minimal filtering F(2 x 2, 3 x 3), Lavin and Gray 2015 (arXiv:1509.09308), section 4.1.

    Each 2 x 2 tile of the output needs 16 products for each pair of channels instead of 36; its error is that of the
    direct sum.  The first two indices of transformed tensors, 0 to 3 each, are the column and the row within a tile.
    """
    batch, _, height, width = x.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    source = x.permute(0, 2, 3, 1)
    filters = _transformed_filters(weight)
    out = x.new_empty(batch, rows, 2, columns, 2, len(weight))
    for b in range(batch):
        for start in range(0, rows, _TILE_ROWS):
            tiles = out[b, start : start + _TILE_ROWS]
            top, bottom = 2 * start - 1, 2 * (start + len(tiles)) + 1  # of the pixels that these tiles read
            margins = (0, 0, 1, 1 + width % 2, max(-top, 0), max(bottom - height, 0))
            _fill_tiles(tiles, F.pad(source[b, max(top, 0) : bottom], margins), filters, bias)
    whole = out.view(batch, 2 * rows, 2 * columns, len(weight))[:, :height, :width]
    return whole.permute(0, 3, 1, 2)  # channels last


def _fill_tiles(tiles: Tensor, pixels: Tensor, filters: Tensor, bias: Tensor) -> None:
    """``tiles`` (n, 2, m, 2, O) := the convolution of ``pixels`` (2 n + 2, 2 m + 2, C)."""
    count, _, columns, _, width = tiles.shape
    by_row = _transformed(pixels, dim=0)
    data = _transformed(by_row, dim=2).view(4, 4, count * columns, -1)
    products = [[_product(data[i, j], filters[i, j], None) for i in range(4)] for j in range(4)]
    for odd in range(2):
        column = [_inverse(row, odd) for row in products]
        for low in range(2):
            torch.add(_inverse(column, low).view(count, columns, width), bias, out=tiles[:, low, :, odd])


def _transformed(pixels: Tensor, dim: int) -> Tensor:
    """B^T d along ``dim``, where 2 n + 2 pixels become n overlapping tiles: (4, ..., n, ...)."""
    length = pixels.shape[dim] - 3
    d0, d1, d2, d3 = (
        pixels.narrow(dim, first, length)[(slice(None),) * dim + (slice(None, None, 2),)] for first in range(4)
    )
    transformed = pixels.new_empty(4, *d0.shape)
    torch.sub(d0, d2, out=transformed[0])
    torch.add(d1, d2, out=transformed[1])
    torch.sub(d2, d1, out=transformed[2])
    torch.sub(d1, d3, out=transformed[3])
    return transformed


def _inverse(products: Sequence[Tensor], odd: int) -> Tensor:
    """Row ``odd`` of A^T m, for the four of m."""
    if odd:
        return (products[1] - products[2]).sub_(products[3])
    return (products[1] + products[2]).add_(products[0])


def _transformed_filters(weight: Tensor) -> Tensor:
    """G g G^T of filters (O, C, 3, 3): (4, 4, O, C)."""
    by_row = _filtered(weight.permute(2, 3, 0, 1))
    return _filtered(by_row.transpose(0, 1))


def _filtered(taps: Tensor) -> Tensor:
    """G g along the first dimension: 4 from 3."""
    outer, middle = (taps[0] + taps[2]) / 2, taps[1] / 2
    return torch.stack([taps[0], outer + middle, outer - middle, taps[2]])
