"""How attention may be computed, by name; ``--attention`` chooses.  "auto" is the rule of ``networks/attention.py``.

Imports no torch, so that the server can list the kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webui.errors import unknown_name
from webui.hooks import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from webui.networks.unet import Attend, Attending

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class AttentionKind:
    """A way to compute softmax(Q K^T / sqrt(d) + bias) V.

    ``attend(q, k, v, bias)`` takes (B, heads, N, d) queries, (B, heads, T, d) keys and values, and a bias that
    broadcasts to (B, heads, N, T) or None; it gives (B, heads, N, d).  The same inputs must give the same bits.
    """

    name: str
    attend: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def chosen_attention(name: str, kinds: Mapping[str, AttentionKind]) -> Attend | None:
    """The kind of this name as the UNet takes it, None for "auto".  Raises RequestError when there is none."""
    if name == AUTO:
        return None
    if name not in kinds:
        raise unknown_name("kind of attention", name, (AUTO, *kinds))
    kind = kinds[name]

    def attend(attending: Attending) -> Tensor:
        query, key, value = (
            tokens.view(*tokens.shape[:2], attending.heads, -1).transpose(1, 2)
            for tokens in (attending.query, attending.key, attending.value)
        )
        bias = None if attending.bias is None else attending.bias.to(query.dtype)
        return kind.attend(query, key, value, bias).transpose(1, 2).flatten(2)

    return attend


def _sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(q, k, v, bias)


def _split(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    from webui.networks.attention import chunked

    return chunked(q, k, v, bias)


@hookimpl
def register_attention_kinds() -> list[AttentionKind]:
    """torch's fused kernel, and one head and a few queries at a time, which takes the least memory."""
    return [AttentionKind(name="sdpa", attend=_sdpa), AttentionKind(name="split", attend=_split)]
