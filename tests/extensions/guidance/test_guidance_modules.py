"""What every module of the guidance extension has to keep: it acts where it is asked to, and leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from guidance_loaded import MODULES, PLUGINS, X, asked, contribution, file, request_for
from torch import Tensor

from webui.conditioning import Contribution
from webui.diffusion.schedules import NoiseTable
from webui.errors import RequestError
from webui.model import Model
from webui.networks.unet import Attend, Attending, Openings
from webui.option_boxes import problem

NEUTRAL: dict[str, dict[str, Any]] = {
    "FreeU": {"b1": 1.0, "b2": 1.0, "s1": 1.0, "s2": 1.0},
    "Perturbed-attention guidance": {"scale": 0.0},
    "Self-attention guidance": {"scale": 0.0},
    "Dynamic thresholding": {"phi": 0.0},
    "Guidance rescale": {"multiplier": 0.0},
}
SPANNED = sorted(set(NEUTRAL) - {"Dynamic thresholding"})
ACTING: dict[str, dict[str, Any]] = {"Dynamic thresholding": {"mimic_scale": 2.0}}
"""Options that act in a request of CFG scale 5, where the default ones do not."""


def test_it_loads_and_registers_what_it_says() -> None:
    assert PLUGINS.problems == []
    assert set(MODULES) == set(NEUTRAL)
    assert {"Euler CFG++", "Euler a CFG++", "DPM++ 2M CFG++"} <= set(PLUGINS.samplers)
    (extension,) = PLUGINS.extensions
    assert (extension.name, extension.version) == ("guidance", "1.0")
    assert all(problem(module.options, ()) is None for module in MODULES.values())


@pytest.mark.parametrize("name", sorted(NEUTRAL))
@pytest.mark.parametrize("cfg_scale", [1.0, 5.0])
def test_neutral_options_change_no_bit(model: Model, name: str, cfg_scale: float) -> None:
    part = contribution(name, model, request_for(), **NEUTRAL[name])
    assert torch.equal(asked(model, part, cfg_scale=cfg_scale), asked(model, cfg_scale=cfg_scale))
    assert part.guide is None


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_the_model_is_bit_identical_afterwards(model: Model, name: str) -> None:
    networks = (model.unet, model.text_encoder, model.vae)
    before = [{key: value.clone() for key, value in network.state_dict().items()} for network in networks]
    plain = asked(model)
    part = contribution(name, model, request_for(), **ACTING.get(name, {}))
    assert not torch.equal(asked(model, part), plain)
    after = [network.state_dict() for network in networks]
    assert [list(one) for one in before] == [list(one) for one in after]
    assert all(torch.equal(one[key], other[key]) for one, other in zip(before, after, strict=True) for key in one)
    assert torch.equal(asked(model), plain)


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_a_picture_is_guided_alike_alone_and_in_a_batch(model: Model, name: str) -> None:
    """Also through a second call: nothing of the first is left in what the module contributes."""
    part = contribution(name, model, request_for(), **ACTING.get(name, {}))
    both = asked(model, part)
    singles = torch.cat([asked(model, part, x=X[:1]), asked(model, part, x=X[1:])])
    assert torch.allclose(both, singles, atol=1e-4)
    assert torch.equal(asked(model, part), both)


def with_another_picture(attending: Attending, attend: Attend) -> Tensor:
    """Self-attention that also reads the places of another picture, as a reference does (ControlNet)."""
    if attending.is_cross:
        return attend(attending)
    others = [tokens.flip(1) * 1.5 for tokens in (attending.key, attending.value)]
    key, value = (torch.cat(pair, dim=1) for pair in zip((attending.key, attending.value), others, strict=True))
    return attend(replace(attending, key=key, value=value))


@pytest.mark.parametrize("name", sorted(NEUTRAL))
@pytest.mark.parametrize("before", [True, False])
def test_it_acts_beside_a_reference(model: Model, name: str, before: bool) -> None:
    reference = Contribution(Openings(attention_wraps=(with_another_picture,)))
    part = contribution(name, model, request_for(), **ACTING.get(name, {}))
    found = asked(model, *((reference, part) if before else (part, reference)))
    assert not torch.equal(found, asked(model, reference))
    assert not torch.equal(found, asked(model, part))


@pytest.mark.parametrize("name", SPANNED)
def test_it_acts_from_its_start_to_its_end(model: Model, name: str) -> None:
    levels = model.noise_table.at([999, 700, 500, 300, 0])
    part = contribution(name, model, request_for(), start=0.25, end=0.6)
    changed = [not torch.equal(asked(model, part, sigma=sigma), asked(model, sigma=sigma)) for sigma in levels]
    assert changed == [False, True, True, False, False]


@pytest.mark.parametrize("name", SPANNED)
def test_an_end_before_the_start_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=r"starts at 0\.5 and ends at 0\.25"):
        MODULES[name].options(start=0.5, end=0.25)


def test_shares_of_the_sampling_are_shares_of_the_trained_timesteps() -> None:
    table = NoiseTable.scaled_linear()
    levels = file("span").noise_levels
    assert levels(0, 1, table) == (0.0, float("inf"))
    assert levels(0.25, 0.75, table) == (table.sigma(0.25 * 999), table.sigma(0.75 * 999))


@pytest.mark.parametrize("name", ["Perturbed-attention guidance", "Self-attention guidance"])
def test_a_model_without_the_attention_is_refused(model: Model, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = type(model.unet.config)(**{**vars(model.unet.config), "middle_depth": 0})
    monkeypatch.setattr(model.unet, "config", config)
    with pytest.raises(RequestError, match="no attention in its middle block"):
        contribution(name, model, request_for())
