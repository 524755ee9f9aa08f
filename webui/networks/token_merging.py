"""Fewer tokens for self-attention: those that are alike are merged, and what they gather is handed back to each.

Token merging, Bolya and Hoffman 2023 (arXiv:2303.17604), section 4, as AUTOMATIC1111 uses it (``modules/sd_models.py``,
apply_token_merging, with dbolya/tomesd): no random choice, so that the top left token of each 2 x 2 square receives;
only around self-attention, and only at the latent's own resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STRIDE = 2


@dataclass(frozen=True)
class Merging:
    """Which tokens of (B, N, C) go and where to.

    ``receivers`` (D,) and ``givers`` (N - D,) are the places of the two kinds; ``order`` (B, N - D) lists the givers,
    the most alike first, of which the first ``count`` are merged into the receivers ``into`` (B, count).
    """

    receivers: Tensor
    givers: Tensor
    order: Tensor
    into: Tensor

    @property
    def count(self) -> int:
        """How many tokens go."""
        return self.into.shape[1]

    def merge(self, x: Tensor) -> Tensor:
        """(B, N - count, C): the givers that stay, then the receivers, each the mean of itself and its givers."""
        given, received = x[:, self.givers], x[:, self.receivers]
        stay = given.gather(1, _wide(self.order[:, self.count :], x))
        go = given.gather(1, _wide(self.order[:, : self.count], x))
        means = received.scatter_reduce(1, _wide(self.into, x), go, reduce="mean")
        return torch.cat([stay, means], dim=1)

    def unmerge(self, x: Tensor) -> Tensor:
        """(B, N, C): each token's own answer; tokens that were merged have their receiver's."""
        stayed = len(self.givers) - self.count
        stay, means = x[:, :stayed], x[:, stayed:]
        whole = x.new_empty(x.shape[0], len(self.givers) + len(self.receivers), x.shape[2])
        whole[:, self.receivers] = means
        places = self.givers[self.order]
        whole.scatter_(1, _wide(places[:, self.count :], x), stay)
        whole.scatter_(1, _wide(places[:, : self.count], x), means.gather(1, _wide(self.into, x)))
        return whole


def merging(x: Tensor, size: tuple[int, int], ratio: float) -> Merging | None:
    """How to leave ``ratio`` of the tokens (B, h * w, C) of a latent of ``size`` (h, w) out; None when that is none.

    At most the three quarters that are no receivers go.  Rows and columns left over by the squares only give.
    """
    height, width = size
    count = int(x.shape[1] * ratio)
    places = torch.arange(height * width, device=x.device).view(height, width)
    square = torch.zeros(height, width, dtype=torch.bool, device=x.device)
    square[: height // STRIDE * STRIDE : STRIDE, : width // STRIDE * STRIDE : STRIDE] = True
    receivers, givers = places[square], places[~square]
    count = min(count, len(givers))
    if count <= 0 or not len(receivers):
        return None
    with torch.no_grad():
        unit = x / x.norm(dim=-1, keepdim=True)
        nearest, into = (unit[:, givers] @ unit[:, receivers].transpose(1, 2)).max(dim=-1)
        order = nearest.argsort(dim=-1, descending=True, stable=True)
    return Merging(receivers, givers, order, into.gather(1, order[:, :count]))


def _wide(places: Tensor, x: Tensor) -> Tensor:
    return places[..., None].expand(-1, -1, x.shape[2])
