from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from webui import device
from webui.networks import attention as ways
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


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("rows", "keys", "heads", "width"), [(256, 256, 2, 32), (1100, 77, 8, 40), (1100, 1100, 2, 40)]
)
@pytest.mark.parametrize("kept", [0, ways.KEPT_WEIGHTS], ids=["recomputed", "kept"])
def test_bf16_gradients_are_as_near_the_formula_as_fused_ones(
    rows: int, keys: int, heads: int, width: int, bias: bool, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "KEPT_WEIGHTS", kept)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, n, heads * width, generator=generator).bfloat16().requires_grad_() for n in (rows, keys, keys)
    )
    slope = torch.randn(2, rows, heads * width, generator=generator).bfloat16()
    added = torch.randn(1, 1, rows, keys, generator=generator) if bias else None
    exact = torch.autograd.grad(formula(q, k, v, heads, added), (q, k, v), slope.double())
    per_head = [tokens.unflatten(2, (heads, width)).transpose(1, 2) for tokens in (q, k, v)]
    mask = added.bfloat16() if added is not None else None
    fused_out = torch.nn.functional.scaled_dot_product_attention(*per_head, mask).transpose(1, 2).flatten(2)
    fused = torch.autograd.grad(fused_out, (q, k, v), slope)
    found = torch.autograd.grad(attention(q, k, v, heads, added), (q, k, v), slope)
    for ours, theirs, right in zip(found, fused, exact, strict=True):
        assert (ours.double() - right).norm() < 3 * (theirs.double() - right).norm() + 0.004 * right.norm()


def test_recomputed_gradients_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "RECOMPUTED_ROWS", 4)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, n, 3, generator=generator, dtype=torch.float64, requires_grad=True) for n in (9, 7, 7))
    assert torch.autograd.gradcheck(ways._Recomputed.apply, (q, k, v))


def test_without_gradients_bf16_takes_the_way_of_generation() -> None:
    """Frozen inputs with gradients switched on are computed to the same bits as in inference."""
    q = torch.randn(1, 700, 80, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.inference_mode():
        expected = attention(q, q, q, 2)
    assert torch.equal(attention(q, q, q, 2), expected)


def test_the_kind_is_named() -> None:
    assert attention_kind(device.choose("cpu", "fp32", torch.get_num_threads()))
