"""Old behaviour through the runner: each changes the picture, and it is made again to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_model import tiny_request

from webui.engine.executor import Control
from webui.engine.runner import Runner
from webui.images.pixels import read_pixels
from webui.metadata.verdict import Outcome
from webui.pipeline.denoising import start_options
from webui.request import Compatibility, GenerationRequest, SamplerOptions
from webui.result import Pixels


def with_old(schedule: str = "Karras", **old: bool) -> GenerationRequest:
    request = tiny_request(compatibility=Compatibility(**old))
    return replace(request, sampling=replace(request.sampling, schedule=schedule))


def made(runner: Runner, request: GenerationRequest) -> tuple[bytes, Pixels]:
    (path,) = runner.generate(request, lambda report: None, Control())
    return path.read_bytes(), read_pixels(path.read_bytes())


@pytest.mark.parametrize("name", ["downcast_alphas", "old_karras", "whole_timesteps"])
def test_it_changes_the_picture_and_is_made_again_to_the_bit(runner: Runner, name: str) -> None:
    _, plain = made(runner, with_old())
    data, picture = made(runner, with_old(**{name: True}))
    assert not np.array_equal(picture, plain)
    assert runner.reproduce(data, lambda report: None, Control()).outcome is Outcome.BIT_EXACT


def test_old_karras_levels_are_those_of_the_karras_schedule_alone_and_yield_to_chosen_ends() -> None:
    old = start_options(with_old(old_karras=True))
    assert (old.sigma_min, old.sigma_max) == (0.1, 10.0)
    assert start_options(with_old("Exponential", old_karras=True)).sigma_max == 0
    chosen = with_old(old_karras=True)
    chosen = replace(chosen, sampling=replace(chosen.sampling, options=SamplerOptions(sigma_max=7.0)))
    assert start_options(chosen).sigma_max == 7.0
