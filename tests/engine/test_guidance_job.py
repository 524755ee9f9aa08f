"""The options of guidance through the runner: each changes the picture, and it is made again to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_model import tiny_request

from webui.engine.executor import Control
from webui.engine.runner import Runner
from webui.images.pixels import read_pixels
from webui.metadata.verdict import Outcome
from webui.pipeline.denoising import calls, walked_calls
from webui.request import GenerationRequest, Guidance, Sampling, StartImage
from webui.result import Pixels

LONG = " ".join(["cat"] * 80)


def with_guidance(guidance: Guidance) -> GenerationRequest:
    request = tiny_request(prompt=LONG, negative_prompt="dog")
    return replace(request, sampling=replace(request.sampling, steps=4, guidance=guidance))


def made(runner: Runner, request: GenerationRequest) -> tuple[bytes, Pixels]:
    (path,) = runner.generate(request, lambda report: None, Control())
    return path.read_bytes(), read_pixels(path.read_bytes())


@pytest.mark.parametrize(
    "guidance",
    [
        Guidance(min_sigma=20.0),
        Guidance(min_sigma=20.0, min_sigma_all=True),
        Guidance(skip_early=0.3),
        Guidance(rescale=0.7),
        Guidance(pad=True),
        Guidance(pad_v0=True),
    ],
    ids=lambda guidance: ", ".join(
        name for name, value in vars(guidance).items() if value != getattr(Guidance(), name)
    ),
)
def test_it_changes_the_picture_and_is_made_again_to_the_bit(runner: Runner, guidance: Guidance) -> None:
    _, plain = made(runner, with_guidance(Guidance()))
    data, picture = made(runner, with_guidance(guidance))
    assert not np.array_equal(picture, plain)
    assert runner.reproduce(data, lambda report: None, Control()).outcome is Outcome.BIT_EXACT


def test_no_call_with_the_negative_prompt_is_a_scale_of_one(runner: Runner) -> None:
    request = with_guidance(Guidance(min_sigma=100.0, min_sigma_all=True))
    _, left_out = made(runner, request)
    alone = replace(request, sampling=replace(request.sampling, cfg_scale=1.0, guidance=Guidance()))
    assert np.array_equal(left_out, made(runner, alone)[1])


@pytest.mark.parametrize(
    ("sampler", "strength", "exact", "expected"),
    [
        ("Euler", 0.75, False, (20, 16)),
        ("Heun", 0.75, False, (40, 32)),
        ("DPM++ SDE", 1.0, False, (40, 40)),
        ("Euler", 0.5, True, (20, 20)),
        ("DDIM", 0.5, False, (20, 11)),
    ],
)
def test_calls_are_counted_as_automatic1111_counts_them(
    runner: Runner, sampler: str, strength: float, exact: bool, expected: tuple[int, int]
) -> None:
    request = tiny_request(
        sampling=Sampling(sampler=sampler, steps=20),
        start=StartImage(image="0" * 64, denoising_strength=strength, exact_steps=exact),
    )
    found = runner.plugins.samplers[sampler]
    assert (calls(request, found), walked_calls(request, found)) == expected
    assert walked_calls(replace(request, start=None), found) == expected[0]
