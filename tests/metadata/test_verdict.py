from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from webui.metadata.verdict import (
    CLOSE_PSNR_DB,
    CLOSE_SSIM,
    Outcome,
    Verdict,
    compare,
    differences,
    plugin_differences,
    psnr_db,
    ssim,
)
from webui.result import Environment, Pixels, Plugin

HERE = Environment(
    webui="1", torch="2.13", transformers=None, device="cpu", dtype="fp32", attention="sdpa", threads=2, cpu="x"
)


def flat(level: int, size: int = 32) -> Pixels:
    return np.full((size, size, 3), level, np.uint8)


def noisy(amount: int, seed: int = 0) -> Pixels:
    noise = np.random.default_rng(seed).integers(-amount, amount + 1, (64, 64, 3))
    return (scene().astype(int) + noise).clip(0, 255).astype(np.uint8)


def scene() -> Pixels:
    rows, columns = np.mgrid[0:64, 0:64]
    return np.stack([rows * 3 + 20, columns * 3 + 20, (rows ^ columns) * 3 + 20], axis=2).astype(np.uint8)


@pytest.mark.parametrize(("first", "second"), [(0, 255), (100, 120), (10, 11), (128, 127)])
def test_ssim_of_flat_pictures_is_the_luminance_term(first: int, second: int) -> None:
    """Without variance, equation 13 leaves (2 m1 m2 + c1) / (m1^2 + m2^2 + c1), with c1 = (0.01 * 255)^2."""
    c1 = 6.5025
    expected = (2 * first * second + c1) / (first**2 + second**2 + c1)
    assert ssim(flat(first), flat(second)) == pytest.approx(expected, abs=1e-12)


def test_ssim_of_a_pictures_negative_is_the_structure_term() -> None:
    """A pattern m + d and m - d has equal means and variances and covariance -v: (c2 - 2v) / (c2 + 2v) where v is
    the pattern's weighted variance; with alternating signs, v is d^2 less the square of a tiny mean."""
    rows, columns = np.mgrid[0:64, 0:64]
    pattern = np.where((rows + columns) % 2, 20, -20)[..., None].repeat(3, axis=2)
    first, second = (128 + pattern).astype(np.uint8), (128 - pattern).astype(np.uint8)
    c2 = (0.03 * 255) ** 2
    inner = (c2 - 2 * 400) / (c2 + 2 * 400)
    assert ssim(first, second) == pytest.approx(inner, abs=1e-3)


def test_ssim_is_one_for_equal_symmetric_and_falls_with_noise() -> None:
    assert ssim(scene(), scene()) == pytest.approx(1.0, abs=1e-12)
    assert ssim(scene(), noisy(20)) == pytest.approx(ssim(noisy(20), scene()), abs=1e-12)
    values = [ssim(scene(), noisy(amount)) for amount in (1, 5, 20, 80)]
    assert values == sorted(values, reverse=True)


def test_psnr_of_a_constant_difference() -> None:
    assert psnr_db(flat(100), flat(110)) == pytest.approx(20 * math.log10(255 / 10))
    assert psnr_db(flat(0), flat(255)) == 0.0
    assert math.isinf(psnr_db(flat(7), flat(7)))


def test_outcomes() -> None:
    assert compare(scene(), scene()).outcome is Outcome.BIT_EXACT
    one = scene()
    one[5, 7, 1] += 1
    found = compare(scene(), one)
    assert found.outcome is Outcome.WITHIN_ONE and found.largest_difference == 1 and found.psnr_db > 70
    two = scene()
    two[5, 7, 1] += 2
    assert compare(scene(), two).outcome is Outcome.CLOSE
    assert compare(scene(), noisy(3)).outcome is Outcome.CLOSE
    assert compare(scene(), noisy(60)).outcome is Outcome.DIFFERENT
    other = compare(scene(), flat(0, 16))
    assert other.outcome is Outcome.DIFFERENT and other.reasons == ("The sizes differ: 64x64 and 16x16.",)


def test_both_thresholds_count(monkeypatch: pytest.MonkeyPatch) -> None:
    second = scene()
    second[0, 0, 0] += 9
    for similarity, ratio, outcome in (
        (CLOSE_SSIM, CLOSE_PSNR_DB, Outcome.CLOSE),
        (CLOSE_SSIM - 1e-9, CLOSE_PSNR_DB, Outcome.DIFFERENT),
        (CLOSE_SSIM, CLOSE_PSNR_DB - 1e-9, Outcome.DIFFERENT),
    ):
        monkeypatch.setattr("webui.metadata.verdict.ssim", lambda *_, value=similarity: value)
        monkeypatch.setattr("webui.metadata.verdict.psnr_db", lambda *_, value=ratio: value)
        assert compare(scene(), second).outcome is outcome


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 1)])
def test_tiny_pictures_are_compared_too(size: tuple[int, int]) -> None:
    first, second = np.zeros((*size, 3), np.uint8), np.full((*size, 3), 9, np.uint8)
    assert compare(first, first).outcome is Outcome.BIT_EXACT
    assert compare(first, second).largest_difference == 9


def test_a_verdict_is_plain_json_and_a_sentence() -> None:
    found = compare(scene(), noisy(60))
    assert json.loads(json.dumps(found.to_dict()))["outcome"] == "different"
    assert found.sentence().startswith("different (PSNR ") and "largest difference" in found.sentence()
    assert Verdict(outcome=Outcome.CANNOT_RUN).sentence() == "cannot run"
    assert "NaN" not in json.dumps(compare(flat(1), flat(1)).to_dict())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"torch": "2.6"}, "Torch was 2.6, here it is 2.13."),
        ({"threads": 8}, "The number of threads was 8, here it is 2."),
        ({"cpu": "y"}, "The processor was y, here it is x."),
        ({"dtype": "bf16"}, "Dtype was bf16, here it is fp32."),
    ],
)
def test_each_fact_that_differs_is_a_sentence(change: dict[str, Any], sentence: str) -> None:
    assert differences(replace(HERE, **change), HERE) == (sentence,)
    assert differences(HERE, HERE) == ()


def test_plugins_that_differ_are_named() -> None:
    then = (Plugin(name="kept", version="1", digest="a"), Plugin(name="gone", version="1", digest="b"),
            Plugin(name="newer", version="1", digest="c"))  # fmt: skip
    now = (then[0], Plugin(name="newer", version="2", digest="d"), Plugin(name="added", version="1", digest="e"))
    sentences = plugin_differences(then, now)
    assert len(sentences) == 3
    assert any("gone" in sentence and "not installed" in sentence for sentence in sentences)
    assert any("newer is 2 here, was 1" in sentence for sentence in sentences)
    assert any("added" in sentence and "did not take part" in sentence for sentence in sentences)
