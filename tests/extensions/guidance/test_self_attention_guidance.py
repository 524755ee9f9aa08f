"""Hong et al. 2022 (arXiv:2210.00939), algorithm 1, with attention written out, OpenCV's blur and the noise as eps."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from guidance_loaded import SIGMA, X, asked, contribution, file, plainly_guided, request_for
from torch import Tensor

from webui.model import Model
from webui.networks.unet import Openings
from webui.request import Guidance

NAME = "Self-attention guidance"


def attention_of_the_middle(model: Model) -> Tensor:
    """How much each place is looked at in the call without the prompt, (pictures, 4, 4), from queries and keys."""
    attention = model.unet.middle_block[1].transformer_blocks[0].attn1
    kept: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, output, name=name: kept.__setitem__(name, output))
        for name, layer in (("q", attention.to_q), ("k", attention.to_k))
    ]
    asked(model)
    for hook in hooks:
        hook.remove()
    received = torch.zeros(2, 16)
    width = kept["q"].shape[2] // attention.heads
    for picture in range(2):
        q, k = kept["q"][2 + picture], kept["k"][2 + picture]  # rows: two with the prompt, two without
        for head in range(attention.heads):
            part = slice(head * width, (head + 1) * width)
            for place in range(16):
                logits = torch.stack([q[place, part] @ k[other, part] for other in range(16)]) / math.sqrt(width)
                received[picture] += logits.softmax(0) / attention.heads
    return received.view(2, 4, 4)


def blurred(latent: Tensor, sigma: float) -> Tensor:
    pictures = [
        [cv2.GaussianBlur(channel.numpy(), (9, 9), sigma, borderType=cv2.BORDER_REFLECT_101) for channel in picture]
        for picture in latent
    ]
    return torch.from_numpy(np.array(pictures))


@pytest.mark.parametrize(("scale", "blur_sigma"), [(0.5, 2.0), (1.0, 1.0)])
def test_it_leads_away_from_the_blurred_answer(model: Model, scale: float, blur_sigma: float) -> None:
    found = asked(model, contribution(NAME, model, request_for(), scale=scale, blur_sigma=blur_sigma))
    plain = plainly_guided(model)
    received = attention_of_the_middle(model)
    mask = (received > 1.0).float().repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None]
    assert 0 < mask.mean() < 1
    clean = plain.uncond
    degraded = mask * blurred(clean, blur_sigma) + (1 - mask) * clean
    eps = (X - clean) / SIGMA
    noised = degraded + SIGMA * eps
    with torch.inference_mode():
        answer = plain.ask(noised, SIGMA, False, Openings())
    eps_degraded = (noised - answer) / SIGMA
    eps_guided = (X - plain.guided) / SIGMA
    assert torch.allclose(found, X - SIGMA * (eps_guided + scale * (eps - eps_degraded)), atol=1e-4)


def test_the_blur_is_opencvs() -> None:
    latent = torch.randn((2, 4, 12, 9), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(file("self_attention").gaussian_blurred(latent, 1.7), blurred(latent, 1.7), atol=1e-5)


def test_all_places_together_are_looked_at_once_each() -> None:
    """The rows of softmax(QK^T) are distributions, so that the threshold of 1 is the average."""
    generator = torch.Generator().manual_seed(2)
    q, k = (torch.randn((2, 16, 8), generator=generator) * 3 for _ in range(2))
    received = file("self_attention").attention_received(q, k, 2)
    assert torch.allclose(received.mean(dim=1), torch.ones(2))


def test_the_places_of_a_reference_do_not_count() -> None:
    generator = torch.Generator().manual_seed(2)
    q, k, other = (torch.randn((2, 16, 8), generator=generator) * 3 for _ in range(3))
    received = file("self_attention").attention_received
    assert torch.equal(received(q, torch.cat([k, other], dim=1), 2), received(q, k, 2))


def test_a_threshold_that_nothing_reaches_blurs_nothing(model: Model) -> None:
    part = contribution(NAME, model, request_for(), threshold=100.0)
    assert torch.allclose(asked(model, part), asked(model), atol=1e-4)


def test_looking_changes_no_bit(model: Model) -> None:
    part = contribution(NAME, model, request_for())
    only_looking = type(part)(part.openings)
    assert torch.equal(asked(model, only_looking), asked(model))


@pytest.mark.parametrize("guidance", [Guidance(skip_early=0.9), Guidance(min_sigma=10.0, min_sigma_all=True)])
def test_a_call_without_the_negative_prompt_is_left_alone(model: Model, guidance: Any) -> None:
    where = {"guidance": guidance}
    assert torch.equal(asked(model, contribution(NAME, model, request_for()), **where), asked(model, **where))
