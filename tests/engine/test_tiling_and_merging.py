"""Tiling and token merging through the runner: what they change, made again, and gone with the job."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_model import tiny_request

from webui.engine.executor import Control
from webui.engine.runner import Runner
from webui.images.pixels import read_pixels
from webui.metadata.verdict import Outcome
from webui.request import GenerationRequest, SecondPass, TokenMerging
from webui.result import Pixels

SECOND = SecondPass(scale=1.5, steps=2, denoising_strength=0.6)


def made(runner: Runner, request: GenerationRequest) -> tuple[bytes, Pixels]:
    (path,) = runner.generate(request, lambda report: None, Control())
    return path.read_bytes(), read_pixels(path.read_bytes())


@pytest.mark.parametrize(
    "changed",
    [tiny_request(tiling=True), tiny_request(token_merging=TokenMerging(ratio=0.5))],
    ids=["tiling", "token merging"],
)
def test_it_changes_the_picture_is_made_again_to_the_bit_and_leaves_nothing_behind(
    runner: Runner, changed: GenerationRequest
) -> None:
    _, plain = made(runner, tiny_request())
    data, picture = made(runner, changed)
    assert not np.array_equal(picture, plain)
    assert runner.reproduce(data, lambda report: None, Control()).outcome is Outcome.BIT_EXACT
    assert np.array_equal(made(runner, tiny_request())[1], plain)


def test_the_second_pass_merges_by_its_own_share_or_as_the_first(runner: Runner) -> None:
    request = tiny_request(second_pass=SECOND)

    def picture(ratio: float, second: float) -> bytes:
        merging = TokenMerging(ratio=ratio, second_pass=second)
        return made(runner, replace(request, token_merging=merging))[1].tobytes()

    assert picture(0.5, 0) == picture(0.5, 0.5)
    assert len({picture(0, 0), picture(0, 0.5), picture(0.5, 0), picture(0.5, 0.2)}) == 4
