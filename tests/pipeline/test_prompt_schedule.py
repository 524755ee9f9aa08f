"""Prompts that change with the step, AND and the emphasis modes, down to what the network is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from webui import device, families
from webui.checkpoints.formats import BUILT_IN
from webui.conditioning.text import Encoder, encode
from webui.diffusion.guidance import GuidedDenoiser, NetworkCall, Pull
from webui.diffusion.prediction import Prediction
from webui.diffusion.schedules import UNIFORM, NoiseTable
from webui.families.sd15 import StableDiffusion1
from webui.model import Model
from webui.pipeline.denoising import denoiser, prepare
from webui.pipeline.run import run_group
from webui.prompt.schedule import Timeline
from webui.request import Emphasis, GenerationRequest, Sampling, Size
from webui.samplers import Sampler, euler

X = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(3))
SIGMA = 3.0


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Model:
    family = {"sd1": StableDiffusion1()}
    loaded = families.load(BUILT_IN.open(tiny_checkpoint), family, device.choose("cpu", "fp32", 1))
    loaded.text_encoder.requires_grad_(False)
    return loaded


@pytest.fixture
def sampler() -> Sampler:
    return euler.register_samplers()[0]


def asked(prompt: str, negative: str = "", steps: int = 4, **options: Any) -> GenerationRequest:
    return GenerationRequest(
        prompt=prompt,
        negative_prompt=negative,
        size=Size(width=64, height=64),
        sampling=Sampling(sampler="Euler", steps=steps, cfg_scale=7.0),
        seed=1,
        **options,
    )


def contexts(request: GenerationRequest, model: Model, sampler: Sampler, calls: int) -> list[tuple[Tensor, Tensor]]:
    setup = prepare(request, model, sampler, UNIFORM)
    return [(setup.cond[0].timed.at(call), setup.uncond.at(call)) for call in range(calls)]


def test_each_call_is_made_with_what_the_prompt_says_then(model: Model, sampler: Sampler) -> None:
    told = contexts(asked("a [cat:dog:0.5]", "[|night]"), model, sampler, 5)
    cat, dog, night, nothing = (encode(text, model, 1) for text in ("a cat", "a dog", "night", ""))
    for (cond, _), expected in zip(told, (cat, cat, cat, dog, dog), strict=True):
        torch.testing.assert_close(cond, expected, rtol=1e-5, atol=1e-5)
    for (_, uncond), expected in zip(told, (nothing, nothing, night, nothing, night), strict=True):
        torch.testing.assert_close(uncond, expected, rtol=1e-5, atol=1e-5)


def test_a_sampler_that_asks_twice_has_twice_the_steps(model: Model, sampler: Sampler) -> None:
    twice = replace(sampler, calls_per_step=2)
    setup = prepare(asked("[a:b:0.5]"), model, twice, UNIFORM)
    assert [span.last for span in setup.cond[0].timed.spans] == [4, 8]


def test_the_second_pass_has_its_own_timeline(model: Model, sampler: Sampler) -> None:
    timeline = Timeline(4, 6, is_second_pass=True)
    setup = prepare(asked("[a:b:1.5]"), model, sampler, UNIFORM, timeline=timeline)
    assert [tuple(span) for span in setup.cond[0].timed.spans] == [(3, "a"), (6, "b")]


def test_what_is_said_at_other_steps_makes_contexts_equally_long(model: Model, sampler: Sampler) -> None:
    (cond, _), *_, (last, _) = contexts(asked("[cat:a BREAK b:0.5]"), model, sampler, 5)
    assert cond.shape[1] == last.shape[1] == 154
    torch.testing.assert_close(cond[:, 77:], encode("", model, 1))


def test_original_keeps_the_mean_of_all_that_is_encoded_together(model: Model) -> None:
    texts = ["(cat:1.5)", "dog", "dog"]
    plain = [encode(text, model, 1) for text in ("cat", "dog", "dog")]
    raw = Encoder(model, emphasis=Emphasis.NO_NORM).encode(texts)
    scale = torch.stack(plain).mean() / torch.stack(raw).mean()
    for found, unscaled in zip(Encoder(model).encode(texts), raw, strict=True):
        torch.testing.assert_close(found, unscaled * scale, rtol=1e-5, atol=1e-5)


def test_emphasis_modes(model: Model) -> None:
    def found(text: str, emphasis: Emphasis) -> Tensor:
        return Encoder(model, emphasis=emphasis).encode([text])[0]

    plain = encode("cat", model, 1)
    weights = torch.ones(77)
    weights[1] = 1.5
    raw = plain * weights[:, None]
    torch.testing.assert_close(found("(cat:1.5)", Emphasis.NO_NORM), raw)
    torch.testing.assert_close(found("(cat:1.5)", Emphasis.ORIGINAL), raw * plain.mean() / raw.mean())
    assert torch.equal(found("(cat:1.5)", Emphasis.IGNORE), plain)
    assert torch.equal(found("(cat:1.5)", Emphasis.NONE), found(r"\(cat\:1.5\)", Emphasis.IGNORE))
    assert found("a BREAK b", Emphasis.NONE).shape[1] == 77
    assert found("a BREAK b", Emphasis.IGNORE).shape[1] == 154


def test_parts_of_and_are_brought_to_one_length(model: Model, sampler: Sampler) -> None:
    setup = prepare(asked("a cat AND a BREAK b :-0.4"), model, sampler, UNIFORM)
    first, second = denoiser(asked(""), setup).cond
    assert (first[1], second[1]) == (1.0, -0.4)
    torch.testing.assert_close(first[0][:, :77], encode("a cat", model, 1))
    assert torch.equal(first[0][:, 77:], first[0][:, 76:77].expand(-1, 77, -1))


def test_and_in_the_negative_prompt_is_a_word(model: Model, sampler: Sampler) -> None:
    ((_, uncond),) = contexts(asked("", "a AND b :2"), model, sampler, 1)
    torch.testing.assert_close(uncond, encode("a AND b :2", model, 1))


def test_a_picture_is_walked_with_what_the_prompt_says_at_each_call(model: Model, sampler: Sampler) -> None:
    request = asked("[cat|dog]", steps=4)
    setup = prepare(request, model, sampler, UNIFORM)
    seen: list[Tensor] = []
    hook = model.unet.register_forward_pre_hook(lambda unet, given: seen.append(given[2][:1]))
    try:
        with torch.inference_mode():
            list(run_group(request, setup, None, (0,)))
    finally:
        hook.remove()
    cat, dog = setup.cond[0].timed.at(0), setup.cond[0].timed.at(2)
    assert not torch.equal(cat, dog)
    assert all(torch.equal(found, other) for found, other in zip(seen, (cat, cat, dog, cat), strict=True))


class Network:
    def __init__(self) -> None:
        self.calls: list[NetworkCall] = []

    def __call__(self, call: NetworkCall) -> Tensor:
        self.calls.append(call)
        return torch.tanh(call.x + call.context.mean(dim=(1, 2))[:, None, None, None])


def guided(cond: Any, scale: float = 7.0, uncond_tokens: int = 77) -> tuple[Tensor, Network]:
    network = Network()
    denoise = GuidedDenoiser(
        predict=network,
        prediction=Prediction.EPSILON,
        table=NoiseTable.scaled_linear(),
        cond=cond,
        uncond=context(-1, uncond_tokens),
        cfg_scale=scale,
    )
    return denoise(X, SIGMA), network


def context(value: float, tokens: int = 77) -> Tensor:
    return torch.full((1, tokens, 3), value)


def test_pulls_add_up() -> None:
    uncond, first, second = (guided(context(value), 1.0)[0] for value in (-1.0, 1.0, 2.0))
    answer, network = guided([Pull(context(1), 1.2), Pull(context(2), -0.4)])
    torch.testing.assert_close(answer, uncond + 7.0 * (1.2 * (first - uncond) - 0.4 * (second - uncond)))
    assert [call.conditional for call in network.calls] == [(True, True), (False,)]
    assert [call.image for call in network.calls] == [(0, 0), (0,)]


def test_one_pull_of_weight_one_is_the_plain_prompt() -> None:
    for scale in (1.0, 7.0):
        assert torch.equal(guided([Pull(context(1), 1.0)], scale)[0], guided(context(1), scale)[0])


def test_a_weight_counts_at_scale_one_too() -> None:
    answer, _ = guided([Pull(context(1), 2.0)], 1.0)
    torch.testing.assert_close(answer, guided(context(1), 2.0)[0])


def test_contexts_of_other_length_are_asked_apart() -> None:
    _, network = guided([Pull(context(1, 154), 1.0), Pull(context(2, 154), 1.0), Pull(context(3, 154), 1.0)])
    assert [call.context.shape[:2] for call in network.calls] == [(2, 154), (1, 154), (1, 77)]
