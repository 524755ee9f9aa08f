"""Attention for all networks: one function, and the choice of how it is computed.

softmax(Q K^T / sqrt(d) + bias) V, Vaswani et al. 2017 (arXiv:1706.03762), equation 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from webui.device import Compute

# Query rows of one head that are computed together on a CPU.  512 rows of 4096 logits are 4 MiB in bf16: they stay in
# the second-level caches between the two products and the softmax, which fused attention in bf16 does not achieve.
CHUNK_ROWS = 512


def attention_kind(compute: Compute) -> str:
    """The name under which a recipe records how attention is computed; another name may mean other last bits."""
    return f"chunked-{CHUNK_ROWS}" if compute.device.type == "cpu" else "sdpa"


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """What each query gathers, (B, N, heads * d).

    ``query`` is (B, N, heads * d), ``key`` and ``value`` are (B, T, heads * d).  ``bias`` is added to the logits and
    broadcasts to (B, heads, N, T).  Deterministic: the order of summation depends on the shapes alone.
    """
    q, k, v = (_split(tokens, heads) for tokens in (query, key, value))
    if query.device.type == "cpu":
        return _chunked(q, k, v, bias)
    return _merge(F.scaled_dot_product_attention(q, k, v, None if bias is None else bias.to(q.dtype)))


def _chunked(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention head by head in chunks of query rows; products in the tensors' dtype, softmax in fp32."""
    batch, heads, rows, width = q.shape
    if bias is not None:
        bias = bias.to(q.dtype).expand(batch, heads, rows, k.shape[2])
    q = q * width**-0.5
    pictures = []
    for b in range(batch):
        outputs = [
            _rows(q[b, head, start : start + CHUNK_ROWS], k[b, head], v[b, head], _part(bias, b, head, start))
            for head in range(heads)
            for start in range(0, rows, CHUNK_ROWS)
        ]
        pictures.append(torch.cat(outputs).view(heads, rows, v.shape[3]))
    return _merge(torch.stack(pictures))


def _rows(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    logits = q @ k.T if bias is None else torch.addmm(bias, q, k.T)
    return torch.softmax(logits, dim=-1) @ v  # the CPU kernel of softmax computes in fp32 whatever the dtype


def _part(bias: Tensor | None, b: int, head: int, start: int) -> Tensor | None:
    return None if bias is None else bias[b, head, start : start + CHUNK_ROWS]


def _split(tokens: Tensor, heads: int) -> Tensor:
    batch, count, channels = tokens.shape
    return tokens.view(batch, count, heads, channels // heads).transpose(1, 2)


def _merge(per_head: Tensor) -> Tensor:
    return per_head.transpose(1, 2).flatten(2)
