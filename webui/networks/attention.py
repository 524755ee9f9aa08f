"""Attention for all networks: one function, and the choice of how it is computed.

softmax(Q K^T / sqrt(d) + bias) V, Vaswani et al. 2017 (arXiv:1706.03762), equation 1.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from webui.device import Compute

# On CPUs with bf16 instructions, torch 2.13's fused attention is no faster in bf16 than in fp32.  Two products with
# a softmax between them take 0.65 of its time for the 4096-token self-attention of SD1 at 512 x 512, and 0.6 to 0.85
# for its 77-token cross-attention; in fp32 the fused kernel is ahead at every size (benchmarks/unet_step.py).
# Many keys: one head at a time, in chunks of query rows, so that the logits (4 MiB for 4096 keys) stay in the caches.
# Few keys: all heads in one batched product.
CHUNK_ROWS = 512
FEW_KEYS = 256
# With gradients in bf16, forward and backward on one core: all heads at once take 0.2 to 0.6 of the fused kernel's time
# at 16 to 4096 tokens, but keep the attention weights.  Beyond so many of them (128 MiB) each head's are computed again
# in the backward pass instead, as the fused kernel does: 0.78 of its time.  In fp32 the fused kernel is level or ahead.
KEPT_WEIGHTS = 2**26
RECOMPUTED_ROWS = 1024


def attention_kind(compute: Compute) -> str:
    """The name under which a recipe records how attention is computed; another name may mean other last bits."""
    return f"chunked-{CHUNK_ROWS}" if _ischunked(compute.device, compute.dtype) else "sdpa"


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """What each query gathers, (B, N, heads * d).

    ``query`` is (B, N, heads * d), ``key`` and ``value`` are (B, T, heads * d).  ``bias`` is added to the logits and
    broadcasts to (B, heads, N, T).  Deterministic: the order of summation depends on the shapes alone.
    """
    q, k, v = (tokens.view(*tokens.shape[:2], heads, -1).transpose(1, 2) for tokens in (query, key, value))
    bias = None if bias is None else bias.to(q.dtype)
    if not _ischunked(query.device, query.dtype):
        gathered = F.scaled_dot_product_attention(q, k, v, bias)
    elif torch.is_grad_enabled() and any(tokens.requires_grad for tokens in (query, key, value)):
        gathered = _differentiable(q, k, v, bias)
    elif key.shape[1] <= FEW_KEYS:
        gathered = _batched(q, k, v, bias)
    else:
        gathered = chunked(q, k, v, bias)
    return gathered.transpose(1, 2).flatten(2)


def _ischunked(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype is torch.bfloat16


def _differentiable(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention by the way whose backward pass is quick."""
    if q.shape[:3].numel() * k.shape[2] <= KEPT_WEIGHTS:
        return _batched(q, k, v, bias)
    if bias is not None:
        return F.scaled_dot_product_attention(q, k, v, bias)
    gathered: Tensor = _Recomputed.apply(q, k, v)  # type: ignore[no-untyped-call]
    return gathered


def _batched(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention of all heads at once."""
    logits = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
    return _softmax(logits if bias is None else logits + bias) @ v


def chunked(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention (B, heads, N, d) head by head, in chunks of query rows."""
    batch, heads, rows, width = q.shape
    if bias is not None:
        bias = bias.expand(batch, heads, rows, k.shape[2])
    q = q * width**-0.5
    chunks = []
    for b in range(batch):
        for head in range(heads):
            for start in range(0, rows, CHUNK_ROWS):
                logits = q[b, head, start : start + CHUNK_ROWS] @ k[b, head].T
                if bias is not None:
                    logits = logits + bias[b, head, start : start + CHUNK_ROWS]
                chunks.append(_softmax(logits) @ v[b, head])
    return torch.cat(chunks).view(batch, heads, rows, width)


def _softmax(logits: Tensor) -> Tensor:
    """Over the keys; torch's CPU kernel computes in fp32 and rounds once, at the end."""
    return torch.softmax(logits, dim=-1)


class _Recomputed(torch.autograd.Function):
    """Attention, a head and RECOMPUTED_ROWS queries at a time, that keeps no weights: backward computes them again.

    With P the weights: dV = P^T dO, dS = P * (dP - sum(P * dP)), dP = dO V^T (Dao et al. 2022, arXiv:2205.14135,
    appendix B.4).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        gathered = _tokens_first(q)
        for place in _heads(q):
            queries, keys, values = q[place].contiguous(), _scaled_keys(k[place]), v[place].contiguous()
            for start in range(0, len(queries), RECOMPUTED_ROWS):
                rows = slice(start, start + RECOMPUTED_ROWS)
                gathered[place][rows] = _softmax(queries[rows] @ keys) @ values
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = ctx.saved_tensors
        slopes = tuple(_tokens_first(tokens) for tokens in (q, k, v))
        for place in _heads(q):
            of_head = _head_backward(q[place].contiguous(), k[place], v[place], slope[place].contiguous())
            for whole, part in zip(slopes, of_head, strict=True):
                whole[place] = part
        return slopes[0], slopes[1], slopes[2]


def _head_backward(q: Tensor, k: Tensor, v: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients (N, d), (T, d), (T, d) of one head; sums over chunks of rows in fp32 at least."""
    keys, values = _scaled_keys(k), v.T.contiguous()
    of_queries = torch.empty_like(q)
    exact = torch.promote_types(q.dtype, torch.float32)
    of_keys, of_values = (torch.zeros(keys.shape, dtype=exact, device=q.device) for _ in range(2))
    for start in range(0, len(q), RECOMPUTED_ROWS):
        rows = slice(start, start + RECOMPUTED_ROWS)
        weights = _softmax(q[rows] @ keys)
        of_values += slope[rows].T @ weights
        of_logits = torch._softmax_backward_data(slope[rows] @ values, weights, -1, weights.dtype)
        of_queries[rows] = of_logits @ keys.T
        of_keys += q[rows].T @ of_logits
    return of_queries, of_keys.T * k.shape[1] ** -0.5, of_values.T


def _scaled_keys(k: Tensor) -> Tensor:
    """(d, T), divided by the root of the width."""
    scaled: Tensor = k.T * k.shape[1] ** -0.5
    return scaled.contiguous()


def _tokens_first(q: Tensor) -> Tensor:
    """An empty (B, heads, N, d) whose memory is (B, N, heads, d), as the networks' tokens are."""
    empty: Tensor = q.new_empty(q.shape[0], q.shape[2], q.shape[1], q.shape[3])
    return empty.transpose(1, 2)


def _heads(q: Tensor) -> list[tuple[int, int]]:
    return [(b, head) for b in range(q.shape[0]) for head in range(q.shape[1])]
