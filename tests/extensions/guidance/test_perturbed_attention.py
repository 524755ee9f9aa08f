"""Ahn et al. 2024 (arXiv:2403.17377): eps + s * (eps - eps of a network whose middle self-attention is V alone)."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from guidance_loaded import SIGMA, X, asked, contribution, plainly_guided, request_for, tiny
from torch import Tensor

from webui.model import Model

NAME = "Perturbed-attention guidance"


@pytest.fixture(scope="module")
def without_relations(tiny_checkpoint: Path) -> Model:
    """The tiny model with layers of its own in which each place of the middle block gathers only its own value."""
    model = tiny(tiny_checkpoint)
    unet = deepcopy(model.unet)
    attention = unet.middle_block[1].transformer_blocks[0].attn1

    def identity(x: Tensor, *_: Any) -> Tensor:
        return attention.to_out(attention.to_v(x))

    attention.forward = identity
    return replace(model, unet=unet)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_it_leads_away_from_the_perturbed_answer(model: Model, without_relations: Model, scale: float) -> None:
    found = asked(model, contribution(NAME, model, request_for(), scale=scale))
    plain, worse = plainly_guided(model), plainly_guided(without_relations)
    eps_guided, eps, eps_worse = ((X - clean) / SIGMA for clean in (plain.guided, plain.cond, worse.cond))
    assert not torch.allclose(eps, eps_worse, atol=1e-3)
    assert torch.allclose(found, X - SIGMA * (eps_guided + scale * (eps - eps_worse)), atol=1e-4)


def test_at_a_cfg_scale_of_1_it_guides_the_prompt_alone(model: Model, without_relations: Model) -> None:
    cfg_1 = {"cfg_scale": 1.0}
    found = asked(model, contribution(NAME, model, request_for(), scale=2.0), **cfg_1)
    cond, worse = asked(model, **cfg_1), asked(without_relations, **cfg_1)
    assert torch.allclose(found, cond + 2 * (cond - worse), atol=1e-4)


@pytest.mark.parametrize("prompt", ["a red square AND a blue circle", "a red square :0.5"])
def test_of_several_prompts_the_first_one_is_perturbed(model: Model, without_relations: Model, prompt: str) -> None:
    """The difference is that of two answers to one prompt, not of a mixture and one of its parts."""
    part = contribution(NAME, model, request_for(prompt=prompt), scale=3.0)
    moved = asked(model, part, prompt=prompt) - asked(model, prompt=prompt)
    first, worse = (plainly_guided(each, prompt="a red square").cond for each in (model, without_relations))
    assert torch.allclose(moved, 3 * (first - worse), atol=1e-4)
