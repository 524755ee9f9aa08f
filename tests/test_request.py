from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from webui.errors import RequestError
from webui.request import (
    MAX_SEED,
    GenerationRequest,
    InpaintArea,
    Mask,
    MaskedContent,
    MaskMode,
    ModuleUse,
    ResizeMode,
    Sampling,
    Size,
    StartImage,
)

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)
DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
SIDE = st.integers(8, 512).map(lambda n: 8 * n)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
MASKS = st.builds(
    Mask,
    image=DIGEST,
    blur=st.integers(0, 64),
    mode=st.sampled_from(MaskMode),
    content=st.sampled_from(MaskedContent),
    area=st.sampled_from(InpaintArea),
    padding=st.integers(0, 256),
)
STARTS = st.builds(
    StartImage,
    image=DIGEST,
    denoising_strength=st.floats(0, 1),
    resize_mode=st.sampled_from(ResizeMode),
    mask=st.none() | MASKS,
)
REQUESTS = st.builds(
    GenerationRequest,
    prompt=TEXT,
    negative_prompt=TEXT,
    size=st.builds(Size, width=SIDE, height=SIDE),
    sampling=st.builds(
        Sampling,
        sampler=TEXT,
        schedule=TEXT,
        steps=st.integers(1, 1000),
        cfg_scale=st.floats(0, 100) | st.integers(0, 100),
        eta=st.none() | st.floats(0, 1),
    ),
    seed=st.none() | st.integers(0, MAX_SEED - 64_000),
    batch_size=st.integers(1, 64),
    batch_count=st.integers(1, 1000),
    clip_skip=st.integers(1, 12),
    checkpoint=st.none() | TEXT,
    start=st.none() | STARTS,
    modules=st.lists(st.builds(ModuleUse, name=TEXT, options=st.dictionaries(TEXT, PLAIN, max_size=3)), max_size=2).map(
        tuple
    ),
)
DIGEST_OF_NOTHING = "0" * 64


@given(REQUESTS)
def test_a_request_survives_json(request_: GenerationRequest) -> None:
    carried = json.loads(json.dumps(request_.to_dict()))
    assert GenerationRequest.from_dict(carried) == request_


@pytest.mark.parametrize(
    "data",
    [
        {"prompt": 5},
        {"prompt": "a" * 100_001},
        {"prompt": "nul \0"},
        {"prompt": "half \ud800"},
        {"negative_prompt": None},
        {"size": {"width": 513}},
        {"size": {"width": 56}},
        {"size": {"height": 4104}},
        {"size": {"width": True}},
        {"size": {"width": 512.0}},
        {"size": [512, 512]},
        {"size": None},
        {"sampling": {"steps": 0}},
        {"sampling": {"steps": 1001}},
        {"sampling": {"steps": "20"}},
        {"sampling": {"steps": 10**400}},
        {"sampling": {"cfg_scale": -0.1}},
        {"sampling": {"cfg_scale": 100.5}},
        {"sampling": {"cfg_scale": math.nan}},
        {"sampling": {"cfg_scale": math.inf}},
        {"sampling": {"cfg_scale": 10**400}},
        {"sampling": {"cfg_scale": True}},
        {"sampling": {"cfg_scale": "7"}},
        {"sampling": {"eta": 1.5}},
        {"sampling": {"sampler": ["Euler"]}},
        {"seed": -1},
        {"seed": MAX_SEED + 1},
        {"seed": 1.0},
        {"seed": MAX_SEED, "batch_size": 2},
        {"batch_size": 0},
        {"batch_size": 65},
        {"batch_count": 1001},
        {"clip_skip": 0},
        {"clip_skip": 13},
        {"checkpoint": 7},
        {"start": {}},
        {"start": {"image": "../../etc/passwd"}},
        {"start": {"image": DIGEST_OF_NOTHING.replace("0", "A")}},
        {"start": {"image": DIGEST_OF_NOTHING, "denoising_strength": 1.01}},
        {"start": {"image": DIGEST_OF_NOTHING, "resize_mode": "Stretch"}},
        {"start": {"image": DIGEST_OF_NOTHING, "resize_mode": []}},
        {"start": {"image": DIGEST_OF_NOTHING, "mask": {"image": DIGEST_OF_NOTHING, "blur": 65}}},
        {"start": {"image": DIGEST_OF_NOTHING, "mask": {"image": DIGEST_OF_NOTHING, "padding": -1}}},
        {"start": {"image": DIGEST_OF_NOTHING, "mask": {"image": DIGEST_OF_NOTHING, "content": "sky"}}},
        {"modules": "ControlNet"},
        {"modules": [{"name": ["unhashable"]}]},
        {"modules": [{"name": "x", "options": []}]},
        {"modules": [{"name": "x", "options": {"a": math.nan}}]},
        {"modules": [{"options": {}}]},
        [],
        "prompt",
        None,
    ],
    ids=lambda data: json.dumps(data, default=str)[:60],
)
def test_what_cannot_mean_anything_is_one_sentence(data: Any) -> None:
    with pytest.raises(RequestError) as caught:
        GenerationRequest.from_dict(data)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 500
    assert (
        "must" in sentence or "at most" in sentence or "lacks" in sentence or "cannot" in sentence or "no " in sentence
    )


@pytest.mark.parametrize("place", [(), ("size",), ("sampling",), ("start",), ("start", "mask")])
def test_an_unknown_field_is_named_with_the_known_ones(place: tuple[str, ...]) -> None:
    data: dict[str, Any] = GenerationRequest(
        start=StartImage(image=DIGEST_OF_NOTHING, mask=Mask(image=DIGEST_OF_NOTHING))
    ).to_dict()
    inner = data
    for name in place:
        inner = inner[name]
    known = next(iter(inner))
    inner["widht"] = 1
    with pytest.raises(RequestError, match=f"unknown fields 'widht'; known are.*{known}"):
        GenerationRequest.from_dict(data)


def test_a_bomb_of_nested_options_is_refused_not_run_into() -> None:
    bomb: Any = 1
    for _ in range(900):
        bomb = [bomb]
    with pytest.raises(RequestError, match="nested more than"):
        GenerationRequest.from_dict({"modules": [{"name": "x", "options": {"a": bomb}}]})


def test_records_built_directly_are_checked_too() -> None:
    with pytest.raises(RequestError, match="Masked content"):
        Mask(image=DIGEST_OF_NOTHING, content="sky")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="Resize mode"):
        StartImage(image=DIGEST_OF_NOTHING, resize_mode="Stretch")  # type: ignore[arg-type]


def test_nothing_random_is_left_once_resolved_and_answers_are_kept() -> None:
    names = {"checkpoint": "model", "sampler": "Euler", "schedule": "Karras", "eta": 0.0}
    drawn = GenerationRequest().resolved(**names)  # type: ignore[arg-type]
    assert drawn.is_resolved and 0 <= (drawn.seed or 0) < 2**32
    assert GenerationRequest(seed=5).resolved(**names).seed == 5  # type: ignore[arg-type]
    assert not GenerationRequest(seed=5).is_resolved


def test_the_schema_tells_every_field() -> None:
    schema = TypeAdapter(GenerationRequest).json_schema()
    assert set(schema["properties"]) == {field.name for field in dataclasses.fields(GenerationRequest)}
    assert {"Size", "Sampling", "StartImage", "Mask", "ModuleUse"} <= set(schema["$defs"])
