"""The switches that a text's version stands for, against the comparisons of the packaging library."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import parse as packaged

from webui.metadata.infotext import parse
from webui.metadata.reading import Known, to_request
from webui.metadata.versions import EXACT_ALPHAS, REFINER_BY_NOISE, TIMELINES_COUNT_ON, parse_version
from webui.request import Compatibility, GenerationRequest


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("v1.6.0", (1, 6, 0, 0, 0)),
        ("1.10.1", (1, 10, 1, 0, 0)),
        ("v1.6.0-2-gabc1234", (1, 6, 0, 0, 2)),
        ("v1.7.0-RC-4-gabc1234", (1, 7, 0, -1, 4)),
        ("v1.8.0-rc", (1, 8, 0, -1, 0)),
        ("f0.0.17v1.8.0rc-latest-276-g29be1da7", (1, 8, 0, -1, 0)),
        ("f2.0.1v1.10.1-previous-669-gdfdcbab6", (1, 10, 1, 0, 0)),
        ("f2.0.1v1.10.1", (1, 10, 1, 0, 0)),
        ("v1.5", (1, 5, 0, 0, 0)),
    ],
)
def test_versions_are_understood(text: str, release: tuple[int, ...]) -> None:
    version = parse_version(text)
    assert version is not None
    assert version.release == release
    assert version.is_forge == text.startswith("f")


@pytest.mark.parametrize(
    "text", ["", "webui 0.1.0", "ComfyUI", "Fooocus v2.1.860", "ad33ec3", "neo-2.29.1", "1", "v1.6.0 x", "1." * 5000]
)
def test_other_programs_ask_for_nothing(text: str) -> None:
    assert parse_version(text) is None


parts = st.integers(0, 30)


@given(parts, parts, parts, st.integers(0, 400))
def test_comparisons_are_those_of_packaging(major: int, minor: int, patch: int, commits: int) -> None:
    """AUTOMATIC1111 compares ``v1.7.0-225-gabc`` as ``v1.7.0-225``, which packaging takes for a post-release."""
    text = f"v{major}.{minor}.{patch}" + (f"-{commits}" if commits else "")
    version = parse_version(f"{text}-gabc1234" if commits else text)
    assert version is not None
    for limit, release in (
        ("1.6.0", TIMELINES_COUNT_ON),
        ("v1.7.0-225", EXACT_ALPHAS),
        ("1.8.0", REFINER_BY_NOISE),
    ):
        assert (version.release < release) == (packaged(text) < packaged(limit))


def asked(version: str, sampler: str = "Euler", prompt: str = "a [b:c:3]", **others: str) -> GenerationRequest:
    further = "".join(f", {key}: {value}" for key, value in others.items())
    text = f"{prompt}\nSteps: 3, Sampler: {sampler}, Seed: 1{further}, Version: {version}"
    return to_request(parse(text), GenerationRequest()).request


def test_old_versions_switch_their_behaviour_on() -> None:
    old = asked("v1.5.2", sampler="DDIM", Refiner="moon")
    assert old.compatibility == Compatibility(old_prompt_editing=True, downcast_alphas=True)
    assert old.sampling.guidance.pad_v0
    assert old.refiner is not None
    assert old.refiner.by_steps
    plain = asked("v1.5.2", prompt="a b")
    assert plain.compatibility == Compatibility(downcast_alphas=True)
    assert not plain.sampling.guidance.pad_v0
    assert asked("v1.7.0-224-gabc").compatibility == Compatibility(downcast_alphas=True)
    assert asked("v1.7.0-225-gabc").compatibility == Compatibility()
    new = asked("v1.8.0", sampler="DDIM", Refiner="moon")
    assert new.refiner is not None
    assert (new.compatibility, new.refiner.by_steps) == (Compatibility(), False)
    assert asked("f2.0.1v1.10.1").compatibility == Compatibility(whole_timesteps=True)


def test_no_version_and_a_wish_against_it_switch_nothing() -> None:
    text = "a [b:c:3]\nSteps: 3, Sampler: DDIM, Seed: 1"
    assert to_request(parse(text), GenerationRequest()).request.compatibility == Compatibility()
    back = to_request(parse(f"{text}, Version: v1.2.0"), GenerationRequest(), Known(old_behaviour=False))
    assert back.request.compatibility == Compatibility()
