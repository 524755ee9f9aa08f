from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from webui import device
from webui.networks.attention import attention, attention_kind


def formula(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None) -> Tensor:
    """softmax(Q K^T / sqrt(d) + bias) V in fp64, one head at a time."""
    width = query.shape[2] // heads
    outputs = []
    for head in range(heads):
        q, k, v = (tokens[..., head * width : (head + 1) * width].double() for tokens in (query, key, value))
        logits = q @ k.transpose(1, 2) / width**0.5
        if bias is not None:
            logits = logits + bias.double().expand(len(q), heads, q.shape[1], k.shape[1])[:, head]
        outputs.append(torch.softmax(logits, dim=-1) @ v)
    return torch.cat(outputs, dim=-1)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 2),
    heads=st.integers(1, 3),
    width=st.sampled_from([1, 5, 8, 40]),
    rows=st.sampled_from([1, 7, 127, 128, 129, 511, 512, 513, 1100]),
    keys=st.sampled_from([1, 9, 77, 154, 600]),
    bias=st.sampled_from([None, "keys", "places", "heads"]),
    seed=st.integers(0, 9),
)
def test_is_the_formula(batch: int, heads: int, width: int, rows: int, keys: int, bias: str | None, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(batch, n, heads * width, generator=generator) for n in (rows, keys, keys))
    shapes = {"keys": (batch, 1, 1, keys), "places": (1, 1, rows, keys), "heads": (batch, heads, rows, keys)}
    added = torch.randn(shapes[bias], generator=generator) if bias else None
    found = attention(query, key, value, heads, added)
    torch.testing.assert_close(found.double(), formula(query, key, value, heads, added), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rows", "keys", "heads", "width"), [(1024, 1024, 8, 40), (700, 77, 8, 80), (64, 64, 8, 160)])
def test_bf16_is_as_near_the_formula_as_fused_attention(rows: int, keys: int, heads: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, n, heads * width, generator=generator).bfloat16() for n in (rows, keys, keys))
    exact = formula(q, k, v, heads, None)
    per_head = [tokens.unflatten(2, (heads, width)).transpose(1, 2) for tokens in (q, k, v)]
    fused = torch.nn.functional.scaled_dot_product_attention(*per_head).transpose(1, 2).flatten(2)
    error, fused_error = (
        (found.double() - exact).norm() / exact.norm() for found in (attention(q, k, v, heads), fused)
    )
    assert error < 2.5 * fused_error


def test_gradients_flow() -> None:
    q, k, v = (torch.randn(1, 600, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    seed = torch.randn(1, 600, 8, dtype=torch.float64)
    found = torch.autograd.grad(attention(q, k, v, 2), (q, k, v), seed)
    expected = torch.autograd.grad(formula(q, k, v, 2, None), (q, k, v), seed)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_kind_is_named() -> None:
    assert attention_kind(device.choose("cpu", "fp32", torch.get_num_threads()))
