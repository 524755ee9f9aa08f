"""What modules contribute reaches the network's calls: by noise level, by call, and around the guided result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_model import tiny_request
from torch import Tensor

from webui import families
from webui.checkpoints.formats import BUILT_IN
from webui.conditioning import Contribution
from webui.device import choose
from webui.diffusion.guidance import Guiding, NetworkCall
from webui.families.sd15 import StableDiffusion1
from webui.model import Model
from webui.networks.unet import Attend, Attending, Openings
from webui.pipeline.denoising import denoiser, prepare
from webui.plugins.manager import Plugins

PLUGINS = Plugins.load(None)
X = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def guided(tiny_checkpoint: Path) -> Callable[..., Tensor]:
    model: Model = families.load(BUILT_IN.open(tiny_checkpoint), {"SD1": StableDiffusion1()}, choose("cpu", "fp32", 1))
    request = tiny_request()
    sampler, schedule = PLUGINS.samplers["Euler"], PLUGINS.schedules["Karras"]
    request = request.resolved(checkpoint="tiny", vae="None", sampler="Euler", schedule="Karras", eta=0.0)

    def ask(sigma: float, *contributions: Contribution) -> Tensor:
        with torch.inference_mode():
            setup = prepare(request, model, sampler, schedule, contributions)
            return denoiser(request, setup)(X, sigma)

    return ask


def halved(attending: Attending, attend: Attend) -> Tensor:
    return attend(attending) * 0.5


HALVED = Openings(attention_wraps=(halved,))


def test_openings_hold_between_their_noise_levels(guided: Callable[..., Tensor]) -> None:
    part = Contribution(HALVED, sigma_range=(2.0, 4.0))
    for sigma, changes in ((1.0, False), (2.0, True), (3.0, True), (4.0, True), (5.0, False)):
        assert torch.equal(guided(sigma, part), guided(sigma)) is not changes


def test_openings_may_be_a_function_of_the_call(guided: Callable[..., Tensor]) -> None:
    calls: list[NetworkCall] = []

    def on_the_prompts_side(call: NetworkCall) -> Openings:
        calls.append(call)
        rows = torch.tensor(call.conditional, dtype=torch.float32)[:, None, None]

        def wrap(attending: Attending, attend: Attend) -> Tensor:
            return attend(attending) * (1 - 0.5 * rows)

        return Openings(attention_wraps=(wrap,))

    found = guided(3.0, Contribution(on_the_prompts_side))
    (call,) = calls
    assert call.conditional == (True, True, False, False) and call.sigma == 3.0
    conds: list[Guiding] = []

    def keep(guiding: Guiding) -> Tensor:
        conds.append(guiding)
        return guiding.guided

    whole, plain = guided(3.0, Contribution(HALVED, guide=keep)), guided(3.0, Contribution(Openings(), guide=keep))
    halved_side, plain_side = conds
    scale = halved_side.cfg_scale
    expected = plain_side.uncond + scale * (halved_side.cond - plain_side.uncond)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.equal(found, whole) and not torch.equal(found, plain)


def test_a_guide_holds_between_its_noise_levels(guided: Callable[..., Tensor]) -> None:
    part = Contribution(Openings(), sigma_range=(2.0, 4.0), guide=lambda guiding: guiding.guided + 1)
    assert torch.equal(guided(3.0, part), guided(3.0) + 1)
    assert torch.equal(guided(5.0, part), guided(5.0))


def test_what_a_guide_asks_has_the_contributions_too(guided: Callable[..., Tensor]) -> None:
    def again(guiding: Guiding) -> Tensor:
        assert torch.allclose(guiding.ask(guiding.x, guiding.sigma, True, Openings()), guiding.cond, atol=1e-5)
        return guiding.ask(guiding.x, guiding.sigma, True, HALVED)

    twice = guided(3.0, Contribution(HALVED), Contribution(Openings(), guide=again))
    quartered = Openings(attention_wraps=(halved, halved))
    asked = guided(3.0, Contribution(quartered), Contribution(Openings(), guide=lambda guiding: guiding.cond))
    assert torch.allclose(twice, asked, atol=1e-5)
