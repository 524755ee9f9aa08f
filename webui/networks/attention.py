"""Attention for all networks: one function, and the choice of how it is computed.

softmax(Q K^T / sqrt(d) + bias) V, Vaswani et al. 2017 (arXiv:1706.03762), equation 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from webui.device import Compute

# On CPUs with bf16 instructions, torch 2.13's fused attention is no faster in bf16 than in fp32.  Two products with
# a softmax between them take 0.65 of its time for the 4096-token self-attention of SD1 at 512 x 512, and 0.6 to 0.85
# for its 77-token cross-attention; in fp32 the fused kernel is ahead at every size (benchmarks/unet_step.py).
# Many keys: one head at a time, in chunks of query rows, so that the logits (4 MiB for 4096 keys) stay in the caches.
# Few keys: all heads in one batched product.
CHUNK_ROWS = 512
FEW_KEYS = 256


def attention_kind(compute: Compute) -> str:
    """The name under which a recipe records how attention is computed; another name may mean other last bits."""
    return f"chunked-{CHUNK_ROWS}" if _is_chunked(compute.device, compute.dtype) else "sdpa"


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """What each query gathers, (B, N, heads * d).

    ``query`` is (B, N, heads * d), ``key`` and ``value`` are (B, T, heads * d).  ``bias`` is added to the logits and
    broadcasts to (B, heads, N, T).  Deterministic: the order of summation depends on the shapes alone.
    """
    q, k, v = (tokens.view(*tokens.shape[:2], heads, -1).transpose(1, 2) for tokens in (query, key, value))
    bias = None if bias is None else bias.to(q.dtype)
    if not _is_chunked(query.device, query.dtype):
        gathered = F.scaled_dot_product_attention(q, k, v, bias)
    elif key.shape[1] <= FEW_KEYS:
        gathered = _batched(q, k, v, bias)
    else:
        gathered = _chunked(q, k, v, bias)
    return gathered.transpose(1, 2).flatten(2)


def _is_chunked(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype is torch.bfloat16


def _batched(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention of all heads at once."""
    logits = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
    return _softmax(logits if bias is None else logits + bias) @ v


def _chunked(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention head by head, in chunks of query rows."""
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
