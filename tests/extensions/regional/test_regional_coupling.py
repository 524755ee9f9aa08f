"""How regions enter the calls of the network, against attention and guidance written out for each text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from regional_loaded import PLUGINS, REGIONAL, asked, contribution, file, request_for
from torch import Tensor

from webui.conditioning import Contribution
from webui.diffusion.guidance import NetworkCall
from webui.errors import RequestError
from webui.model import Model
from webui.networks.unet import Attending, Openings, attend
from webui.option_boxes import problem

coupling = file("coupling")
METHODS = ("Attention", "Latent")
TOLERANCE = 1e-4
"""Float32 values of up to some 20; keys and values of one context and of a batch of it are rounded differently."""


class Always:
    """A text that is the same at every call."""

    def __init__(self, context: Tensor) -> None:
        self.context = context

    def at(self, number: int) -> Tensor:
        return self.context


def test_it_loads_and_says_what_it_is() -> None:
    assert PLUGINS.problems == [] and [plugin.name for plugin in PLUGINS.extensions] == ["regional"]
    assert problem(REGIONAL.options, ()) is None


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("with_extra", [False, True])
def test_each_place_gathers_from_every_text_by_its_share(with_extra: bool) -> None:
    """sum of share * softmax(Q K^T / sqrt(d)) V over the texts, place by place; rows without the prompt stay."""
    to_k, to_v = random(6, 8, seed=1), random(6, 8, seed=2)
    own, extra = random(2, 5, 6, seed=3), random(2, 2, 6, seed=4)
    source = torch.cat([own, extra], dim=1) if with_extra else own
    bias = random(2, 1, 12, source.shape[1], seed=9) if with_extra else None
    texts = [random(1, tokens, 6, seed=5 + tokens) for tokens in (4, 7)]
    shares = torch.rand((1, 3, 4), generator=torch.Generator().manual_seed(8))
    shares = torch.cat([shares, 1 - shares])
    attending = Attending(
        site="a",
        is_cross=True,
        size=(3, 4),
        heads=1,
        query=random(2, 12, 8, seed=7),
        key=source @ to_k,
        value=source @ to_v,
        bias=bias,
        read=lambda context: (context @ to_k, context @ to_v),
    )
    side = coupling.Side(tuple(map(Always, texts)), shares)
    call = NetworkCall(
        x=torch.zeros(2), timestep=0, sigma=1, context=own, image=(0, 0), conditional=(True, False), number=3
    )
    (wrap,) = coupling.Coupling(side).attention(call).attention_wraps
    found = wrap(attending, attend)
    expected = torch.zeros(12, 8)
    for text, share in zip(texts, shares.flatten(1), strict=True):
        tokens = torch.cat([text[0], extra[0]]) if with_extra else text[0]
        for place in range(12):
            logits = (tokens @ to_k) @ attending.query[0, place] / np.sqrt(8)
            if bias is not None:
                logits = logits + torch.cat([torch.zeros(len(text[0])), bias[0, 0, place, 5:]])
            expected[place] += share[place] * (logits.softmax(0) @ (tokens @ to_v))
    assert torch.allclose(found[0], expected, atol=1e-5)
    assert torch.equal(found[1], attend(attending)[1])
    in_itself = Attending(**{**vars(attending), "is_cross": False})
    assert torch.equal(wrap(in_itself, attend), attend(in_itself))


def test_shares_follow_the_sizes_of_the_network() -> None:
    shares = torch.rand((2, 8, 6), generator=torch.Generator().manual_seed(1))
    side = coupling.Side((), shares)
    halved = shares.reshape(2, 4, 2, 3, 2).mean(dim=(2, 4)).flatten(1)
    assert torch.allclose(side.shares_at((4, 3)), halved, atol=1e-6)
    assert torch.equal(side.shares_at((8, 6)), shares.flatten(1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("prompt", ["a (red:1.3) square", "a [red:blue:0.5] square"])
def test_one_region_over_all_is_the_plain_prompt(model: Model, method: str, prompt: str) -> None:
    request = request_for(prompt, "grey")
    part = contribution(model, request, method=method)
    for call in (0, 3):
        assert torch.allclose(asked(model, request, part, call=call), asked(model, request, call=call), atol=TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
def test_regions_of_one_text_are_that_text(model: Model, method: str) -> None:
    request, alone = request_for("a red square BREAK a red square", "grey"), request_for("a red square", "grey")
    found = asked(model, request, contribution(model, request, method=method, ratios="2,1"))
    assert torch.allclose(found, asked(model, alone), atol=TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("ratio", "holds"), [("1", "a blue circle"), ("0", "a red square")])
def test_a_base_of_all_or_nothing(model: Model, method: str, ratio: str, holds: str) -> None:
    request = request_for("a blue circle ADDBASE a red square BREAK a red square")
    found = asked(model, request, contribution(model, request, method=method, base_ratio=ratio))
    assert torch.allclose(found, asked(model, request_for(holds)), atol=TOLERANCE)


def test_latent_mode_mixes_the_answers_of_the_texts(model: Model) -> None:
    """uncond + scale * (sum of share * cond - uncond), the shares by columns of the latent: 2 of 8, then 6."""
    texts, negatives = ("a red square", "a blue circle"), ("grey", "fog")
    request = request_for(" BREAK ".join(texts), " BREAK ".join(negatives))
    found = asked(model, request, contribution(model, request, method="Latent", ratios="1,3"))
    share = torch.cat([torch.ones(2), torch.zeros(6)])

    def mixed(sides: tuple[str, str]) -> Tensor:
        left, right = (asked(model, request_for(text, cfg_scale=1.0)) for text in sides)
        return share * left + (1 - share) * right

    cond, uncond = mixed(texts), mixed(negatives)
    assert torch.allclose(found, uncond + 5 * (cond - uncond), atol=TOLERANCE)


def test_a_negative_prompt_in_one_piece_holds_everywhere(model: Model) -> None:
    request = request_for("a red square BREAK a blue circle", "grey")
    found = asked(model, request, contribution(model, request, method="Latent"))
    share = torch.cat([torch.ones(4), torch.zeros(4)])
    red, blue, grey = (
        asked(model, request_for(text, cfg_scale=1.0)) for text in ("a red square", "a blue circle", "grey")
    )
    assert torch.allclose(found, grey + 5 * (share * red + (1 - share) * blue - grey), atol=TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
def test_a_scale_of_1_is_the_prompt_alone(model: Model, method: str) -> None:
    request = request_for("a red square BREAK a red square", "grey", 1.0)
    found = asked(model, request, contribution(model, request, method=method))
    assert torch.allclose(found, asked(model, request_for("a red square", "", 1.0)), atol=TOLERANCE)


def test_regions_may_be_painted(model: Model) -> None:
    """Red left, cyan right: as two columns."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8, 0], pixels[:, 8:, 1:] = 255, 255
    request = request_for("a red square BREAK a blue circle")
    painted = contribution(model, request, load=lambda sha256: pixels, mask="ab" * 32)
    assert torch.equal(asked(model, request, painted), asked(model, request, contribution(model, request)))


@pytest.mark.parametrize("method", METHODS)
def test_tokens_of_other_modules_stay(model: Model, method: str) -> None:
    other = Contribution(Openings(extra_context=random(1, 3, 32, seed=4)))
    request, alone = request_for("a red square BREAK a red square"), request_for("a red square")
    found = asked(model, request, contribution(model, request, method=method), other)
    assert torch.allclose(found, asked(model, alone, other), atol=TOLERANCE)
    assert not torch.allclose(found, asked(model, alone), atol=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_bit_identical_afterwards(model: Model, method: str) -> None:
    before = {key: value.clone() for key, value in model.unet.state_dict().items()}
    request = request_for("a red square BREAK a blue circle")
    plain = asked(model, request)
    part = contribution(model, request, method=method)
    first = asked(model, request, part)
    assert not torch.equal(first, plain) and torch.equal(asked(model, request, part), first)
    after = model.unet.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(asked(model, request), plain)


@pytest.mark.parametrize(
    ("prompt", "negative", "options", "told"),
    [
        ("a AND b", "", {}, "AND cannot be used together with regions"),
        ("a BREAK b", "c BREAK d BREAK e", {}, "the negative prompt has 3 texts and the prompt 2"),
        ("a BREAK b", "", {"ratios": "1,1,1"}, "make 3 regions and the prompt has 2"),
        ("a BREAK b", "", {"weights": "1,2,3"}, "Region weights is"),
        ("a ADDBASE b BREAK c", "", {"base_ratio": "1.2"}, "Base ratio is"),
    ],
)
def test_what_does_not_fit_is_said(
    model: Model, prompt: str, negative: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(RequestError, match=told):
        contribution(model, request_for(prompt, negative), **options)


def test_the_preview_shows_the_regions_in_their_colours() -> None:
    painting = file("painting")
    pixels = REGIONAL.preview(REGIONAL.options(ratios="1,1;1,1"), None)
    assert pixels.shape == (512, 512, 3) and pixels.dtype == np.uint8
    assert [tuple(pixels[row, 256].tolist()) for row in (100, 400)] == [painting.colour(0), painting.colour(1)]
    with pytest.raises(RequestError, match="write Ratios"):
        REGIONAL.preview(REGIONAL.options(), None)
