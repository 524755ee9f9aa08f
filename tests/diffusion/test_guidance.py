from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from webui.diffusion.guidance import GuidedDenoiser, Guiding, NetworkCall, Pull, combine, rescaled
from webui.diffusion.prediction import Prediction, network_output
from webui.diffusion.schedules import NoiseTable
from webui.networks.unet import Openings
from webui.request import Guidance

TABLE = NoiseTable.scaled_linear()


class Network:
    """A toy network that remembers what it was asked; each row answers by its own input and context alone."""

    def __init__(self) -> None:
        self.calls: list[NetworkCall] = []

    def __call__(self, call: NetworkCall) -> Tensor:
        self.calls.append(call)
        return torch.tanh(call.x + call.context.mean(dim=(1, 2))[:, None, None, None])


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def guided(network: Network) -> Callable[..., GuidedDenoiser]:
    def build(cond: Tensor, uncond: Tensor, cfg_scale: float, **options: Any) -> GuidedDenoiser:
        settings = {"prediction": Prediction.EPSILON, "table": TABLE} | options
        return GuidedDenoiser(predict=network, cond=cond, uncond=uncond, cfg_scale=cfg_scale, **settings)

    return build


def context(*rows: float, tokens: int = 77) -> Tensor:
    return torch.stack([torch.full((tokens, 3), row) for row in rows])


X = torch.randn((2, 4, 3, 5), generator=torch.Generator().manual_seed(1))
SIGMA = TABLE.sigma(321)


def test_combine_is_a_line_through_both_answers() -> None:
    cond, uncond = torch.tensor([3.0]), torch.tensor([1.0])
    assert [combine(cond, uncond, scale).item() for scale in (0, 1, 2, 7.5)] == [1, 3, 5, 16]


def test_one_batch_conds_first(network: Network, guided) -> None:
    guided(context(1, 2), context(-1, -2), 7.0)(X, SIGMA)
    (call,) = network.calls
    assert call.context[:, 0, 0].tolist() == [1, 2, -1, -2]
    assert call.image == (0, 1, 0, 1)
    assert call.conditional == (True, True, False, False)
    assert torch.equal(call.x[:2], call.x[2:])
    assert (call.timestep, call.sigma) == (321, SIGMA)
    torch.testing.assert_close(call.x[:2], X / (1 + SIGMA**2) ** 0.5)


def test_timesteps_between_the_trained_ones_are_not_rounded(network: Network, guided) -> None:
    guided(context(1), context(-1), 1.0)(X, TABLE.sigma(321.4))
    assert network.calls[0].timestep == pytest.approx(321.4, abs=1e-9)


def test_one_context_serves_every_picture(network: Network, guided) -> None:
    answer = guided(context(1), context(-1), 7.0)(X, SIGMA)
    assert network.calls[0].context[:, 0, 0].tolist() == [1, 1, -1, -1]
    torch.testing.assert_close(answer, guided(context(1, 1), context(-1, -1), 7.0)(X, SIGMA))


def test_contexts_of_other_length_go_in_two_calls(network: Network, guided) -> None:
    answer = guided(context(1, 2, tokens=154), context(-1), 7.0)(X, SIGMA)
    assert [call.context.shape for call in network.calls] == [(2, 154, 3), (2, 77, 3)]
    assert [call.conditional for call in network.calls] == [(True, True), (False, False)]
    torch.testing.assert_close(answer, guided(context(1, 2), context(-1), 7.0)(X, SIGMA))


def test_scale_one_asks_with_the_prompt_alone(network: Network, guided) -> None:
    answer = guided(context(1, 2), context(-1), 1.0)(X, SIGMA)
    (call,) = network.calls
    assert call.conditional == (True, True)
    torch.testing.assert_close(answer, guided(context(1, 2), context(5), 1.0)(X, SIGMA), rtol=0, atol=0)


def test_scale_zero_is_the_negative_prompt_alone(guided) -> None:
    answer = guided(context(3), context(-1), 0.0)(X, SIGMA)
    torch.testing.assert_close(answer, guided(context(-1), context(9), 1.0)(X, SIGMA))


@pytest.mark.parametrize("prediction", list(Prediction))
def test_guidance_is_the_same_on_outputs_and_on_clean_latents(network: Network, guided, prediction: Prediction) -> None:
    answer = guided(context(1), context(-1), 7.0, prediction=prediction)(X, SIGMA)
    cond, uncond = network(network.calls[0]).chunk(2)
    a = 1 / (1 + SIGMA**2)
    output = uncond + 7.0 * (cond - uncond)
    x = X * a**0.5
    clean = (
        (x - (1 - a) ** 0.5 * output) / a**0.5
        if prediction is Prediction.EPSILON
        else a**0.5 * x - (1 - a) ** 0.5 * output
    )
    torch.testing.assert_close(answer, clean, rtol=1e-4, atol=1e-4)


def test_the_network_computes_in_its_dtype_and_the_rest_in_float32(network: Network, guided) -> None:
    answer = guided(context(1), context(-1), 7.0, dtype=torch.bfloat16)(X, SIGMA)
    (call,) = network.calls
    assert torch.equal(call.x, (X / (1 + SIGMA**2) ** 0.5).bfloat16().repeat(2, 1, 1, 1))  # rounded once, after scaling
    assert (call.x.dtype, call.context.dtype, answer.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    # At a low noise level nearly all of the answer is x itself, which bf16 must not have touched.
    quiet = guided(context(1), context(-1), 1.0, dtype=torch.bfloat16)(X, 1e-4)
    torch.testing.assert_close(quiet, X, rtol=0, atol=2e-4)


def test_another_way_to_mix_can_be_handed_in(guided) -> None:
    answer = guided(context(1), context(-1), 7.0, mix=lambda cond, uncond, scale: cond)(X, SIGMA)
    torch.testing.assert_close(answer, guided(context(1), context(-1), 1.0)(X, SIGMA))


def asked(network: Network) -> list[tuple[bool, ...]]:
    return [call.conditional for call in network.calls]


@pytest.mark.parametrize(
    ("guidance", "calls_without"),
    [
        (Guidance(), set()),
        (Guidance(min_sigma=2.0), {3, 5}),
        (Guidance(min_sigma=2.0, min_sigma_all=True), {3, 4, 5}),
        (Guidance(skip_early=0.4), {0, 1, 2}),
        (Guidance(skip_early=0.05), {0}),
        (Guidance(skip_early=0.2, min_sigma=2.0), {0, 1, 3, 5}),
    ],
)
def test_the_calls_that_leave_the_negative_prompt_out(
    network: Network, guided, guidance: Guidance, calls_without: set[int]
) -> None:
    for call, sigma in enumerate([14.0, 7.0, 3.0, 1.5, 0.8, 0.3]):
        guided(context(1), context(-1), 7.0, guidance=guidance, call=call, calls=6)(X[:1], sigma)
    assert {call for call, sides in enumerate(asked(network)) if sides == (True,)} == calls_without
    assert len(network.calls) == 6


def test_samplers_that_count_timesteps_compare_those_with_the_lowest_level(network: Network, guided) -> None:
    """At timestep 150 sigma is 0.46: below 2 as a sigma, above it as a timestep."""
    wish = {"guidance": Guidance(min_sigma=2.0, min_sigma_all=True)}
    guided(context(1), context(-1), 7.0, **wish)(X[:1], TABLE.sigma(150))
    guided(context(1), context(-1), 7.0, counts_timesteps=True, **wish)(X[:1], TABLE.sigma(150))
    guided(context(1), context(-1), 7.0, counts_timesteps=True, **wish)(X[:1], TABLE.sigma(1))
    assert asked(network) == [(True,), (True, False), (True,)]


def test_without_the_negative_prompt_the_prompt_alone_is_the_answer(guided) -> None:
    every = {"guidance": Guidance(skip_early=1.0)}
    answer, unguided = guided(context(1, 2), context(-1), 7.0, **every).guided_and_unguided(X, SIGMA)
    alone = guided(context(1, 2), context(-1), 1.0)(X, SIGMA)
    assert torch.equal(answer, alone)
    assert torch.equal(unguided, alone)


def test_without_the_negative_prompt_the_first_part_of_several_stands_for_it(guided) -> None:
    pulls = [Pull(context(1), 0.5), Pull(context(2), 0.8)]
    answer = guided(pulls, context(-1), 7.0, guidance=Guidance(skip_early=1.0))(X, SIGMA)
    one, two = (guided(context(row), context(-1), 1.0)(X, SIGMA) for row in (1, 2))
    torch.testing.assert_close(answer, one + 0.8 * (two - one))


@pytest.mark.parametrize(("tokens", "negative"), [(154, 77), (77, 231)])
def test_padding_asks_both_in_one_batch_and_repeats_the_empty_prompt(
    network: Network, guided, tokens: int, negative: int
) -> None:
    longest = max(tokens, negative)
    wish = {"guidance": Guidance(pad=True), "empty": context(9)}
    guided(context(1, tokens=tokens), context(-1, tokens=negative), 7.0, **wish)(X[:1], SIGMA)
    (call,) = network.calls
    cond, uncond = call.context[..., 0].tolist()
    assert cond == [1] * tokens + [9] * (longest - tokens)
    assert uncond == [-1] * negative + [9] * (longest - negative)


@pytest.mark.parametrize(("tokens", "negative"), [(154, 77), (77, 231)])
def test_the_old_padding_repeats_or_cuts_the_negative_prompt(
    network: Network, guided, tokens: int, negative: int
) -> None:
    uncond = torch.arange(negative, dtype=torch.float32)[None, :, None].expand(1, -1, 3)
    guided(context(1, tokens=tokens), uncond, 7.0, guidance=Guidance(pad=True, pad_v0=True))(X[:1], SIGMA)
    (call,) = network.calls
    assert call.context[1, :, 0].tolist() == [min(place, negative - 1) for place in range(tokens)]


@pytest.mark.parametrize("prediction", list(Prediction))
def test_rescaling_is_the_published_one_on_the_networks_output(guided, prediction: Prediction) -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    def output(scale: float, **options: Any) -> Tensor:
        clean = guided(context(1), context(-1), scale, prediction=prediction, **options)(X, SIGMA)
        return network_output(prediction, X, SIGMA, clean)

    expected = rescale_noise_cfg(output(7.0), output(1.0), guidance_rescale=0.7)
    torch.testing.assert_close(output(7.0, guidance=Guidance(rescale=0.7)), expected, rtol=1e-4, atol=1e-4)


def test_rescaling_wholly_gives_the_prompts_deviation() -> None:
    guided, cond = 3 * torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    found = rescaled(guided, cond, 1.0).std(dim=(1, 2, 3))
    torch.testing.assert_close(found, cond.std(dim=(1, 2, 3)))
    assert torch.equal(rescaled(guided, cond, 0.0), guided)


def test_guides_change_the_clean_latent_one_after_the_other(guided) -> None:
    seen: list[Guiding] = []

    def look(guiding: Guiding) -> Tensor:
        seen.append(guiding)
        return guiding.guided + 1

    plain = guided(context(1), context(-1), 3.0)(X, SIGMA)
    found = guided(context(1), context(-1), 3.0, guides=[look, look], call=4, calls=9)(X, SIGMA)
    assert torch.allclose(found, plain + 2)
    first, second = seen
    assert torch.equal(first.guided, plain) and torch.equal(second.guided, plain + 1)
    assert torch.equal(combine(first.cond, first.uncond, 3.0), plain)
    assert (first.sigma, first.cfg_scale, first.call, first.calls) == (SIGMA, 3.0, 4, 9) and first.x is X


def test_a_guide_may_ask_again_with_openings_of_its_own(network: Network, guided) -> None:
    own = Openings(merged_tokens=0.5)

    def again(guiding: Guiding) -> Tensor:
        cond = guiding.ask(guiding.x, guiding.sigma, True, own)
        assert torch.equal(cond, guiding.cond), "the toy network does not read openings"
        return guiding.ask(guiding.x, guiding.sigma, False, own)

    found = guided(context(1), context(-1), 3.0, guides=[again])(X, SIGMA)
    assert torch.equal(found, guided(context(1), context(-1), 0.0)(X, SIGMA))
    first, cond, uncond = network.calls[:3]
    assert first.openings.merged_tokens == 0 and cond.openings is own and uncond.openings is own
    assert cond.conditional == (True, True) and uncond.conditional == (False, False)


def test_a_guide_at_scale_one_sees_the_prompts_answer_for_both(network: Network, guided) -> None:
    def look(guiding: Guiding) -> Tensor:
        assert guiding.cond is guiding.uncond and guiding.cond is guiding.guided
        return guiding.guided

    found = guided(context(1), context(-1), 1.0, guides=[look])(X, SIGMA)
    assert asked(network) == [(True, True)]
    assert torch.equal(found, guided(context(1), context(-1), 1.0)(X, SIGMA))


def test_a_guide_without_the_negative_prompt_sees_several_prompts_together_for_both(guided) -> None:
    """Else cond - uncond times a scale would lead away from one of the prompts."""

    def look(guiding: Guiding) -> Tensor:
        assert guiding.cond is guiding.uncond and guiding.cond is guiding.guided
        return guiding.guided + 1

    pulls = [Pull(context(1), 0.5), Pull(context(2), 0.8)]
    every = {"guidance": Guidance(skip_early=1.0)}
    plain = guided(pulls, context(-1), 7.0, **every)(X, SIGMA)
    assert torch.equal(guided(pulls, context(-1), 7.0, guides=[look], **every)(X, SIGMA), plain + 1)


def test_calls_are_numbered_like_the_denoisers(network: Network, guided) -> None:
    """A guide's question is one of the call that it is asked in."""

    def again(guiding: Guiding) -> Tensor:
        return guiding.ask(guiding.x, guiding.sigma, False, Openings())

    guided(context(1), context(-1), 7.0, call=5, calls=9, guides=[again])(X, SIGMA)
    assert [call.number for call in network.calls] == [5, 5]
