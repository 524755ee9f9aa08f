"""queries and keys of cross-attention -> where each token of the prompt looked.

Attention maps as explanations of a picture: Tang et al. 2022 (arXiv:2210.04885, DAAM), who sum over heads, sites and
steps; here it is the mean, so that at every place the shares of all tokens still sum to 1.  Called by ``recorder``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from webui.networks.unet import Attend, Attending

LONGEST_SIDE = 32
"""Maps are kept at this size: as the middle resolutions of a 512-pixel picture have."""


def map_size(height: int, width: int) -> tuple[int, int]:
    """(h, w) of the maps of a latent of this size: its own, scaled down to LONGEST_SIDE."""
    longest = max(height, width)
    if longest <= LONGEST_SIDE:
        return height, width
    return max(1, round(height * LONGEST_SIDE / longest)), max(1, round(width * LONGEST_SIDE / longest))


def shares(attending: Attending, row: int) -> Tensor:
    """The share of each key at each query (N, T) float32 for one row of the batch, the mean over heads.

    softmax(Q K^T / sqrt(d) + bias), Vaswani et al. 2017 (arXiv:1706.03762), equation 1.
    """
    heads = attending.heads
    both = (tokens[row].float() for tokens in (attending.query, attending.key))
    query, key = (tokens.reshape(len(tokens), heads, -1) for tokens in both)
    bias = attending.bias
    total = query.new_zeros(len(query), len(key))
    for head in range(heads):
        logits = query[:, head] @ key[:, head].T * query.shape[-1] ** -0.5
        if bias is not None:
            one = bias[row if bias.shape[0] > 1 else 0]
            logits = logits + one[head if one.shape[0] > 1 else 0].float()
        total += torch.softmax(logits, dim=-1)
    mean: Tensor = total / heads
    return mean


def at_size(shares: Tensor, size: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Shares (N, T) at a site of ``size`` (h, w) as maps (T, *wanted); shares at a place still sum to 1."""
    maps = shares.T.reshape(1, -1, *size)
    if size == wanted:
        return maps[0]
    if size[0] >= wanted[0] and size[1] >= wanted[1]:
        resized: Tensor = F.interpolate(maps, wanted, mode="area")
    else:
        resized = F.interpolate(maps, wanted, mode="bilinear", align_corners=False)
    return resized[0]


@dataclass
class Looking:
    """An attention wrap that adds up, for some rows of one call, the maps of every cross-attention.

    ``tokens`` of the keys are the prompt's, of which ``kept`` have maps of their own; the rest (an adapter's tokens,
    far chunks) share the last map.
    """

    rows: Sequence[int]
    tokens: int
    kept: int
    size: tuple[int, int]
    sums: list[Tensor] = field(default_factory=list)
    sites: int = 0

    def __call__(self, attending: Attending, attend: Attend) -> Tensor:
        """What attention gathers, unchanged."""
        height, width = attending.size
        if attending.is_cross and attending.query.shape[1] == height * width:
            found = [self._map(attending, row) for row in self.rows]
            self.sums = [a + b for a, b in zip(self.sums, found, strict=True)] if self.sums else found
            self.sites += 1
        return attend(attending)

    def _map(self, attending: Attending, row: int) -> Tensor:
        found = shares(attending, row)
        kept = min(self.kept, self.tokens)
        found = torch.cat([found[:, :kept], found[:, kept:].sum(dim=-1, keepdim=True)], dim=-1)
        return at_size(found, attending.size, self.size)

    def maps(self) -> list[Tensor]:
        """(kept + 1, h, w) for each row, the mean over the sites; empty when no site was seen."""
        return [total / self.sites for total in self.sums]
