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
    Compatibility,
    FaceRestoration,
    GenerationRequest,
    Guidance,
    InpaintArea,
    Mask,
    MaskedContent,
    MaskMode,
    ModuleUse,
    Noise,
    RandomSource,
    Refiner,
    RefinerPasses,
    ResizeMode,
    SamplerOptions,
    Sampling,
    SecondPass,
    Size,
    SoftInpainting,
    StartImage,
    TokenMerging,
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
    blur_y=st.none() | st.integers(0, 64),
    soft=st.none() | st.builds(SoftInpainting, mask_influence=st.floats(0, 1)),
)
STARTS = st.builds(
    StartImage,
    image=DIGEST,
    denoising_strength=st.floats(0, 1),
    resize_mode=st.sampled_from(ResizeMode),
    mask=st.none() | MASKS,
    noise_multiplier=st.floats(0, 2),
    background=st.sampled_from(["#ffffff", "#00aBcd"]),
)
LEVELS = st.floats(0, 100)
OPTIONS = st.builds(
    SamplerOptions,
    s_churn=LEVELS,
    s_tmax=LEVELS,
    s_noise=st.floats(0, 2),
    sigma_max=LEVELS,
    rho=LEVELS,
    beta_alpha=st.floats(0.1, 1),
    discard_penultimate=st.booleans(),
    full_noise=st.booleans(),
    zero_terminal_snr=st.booleans(),
    unipc_order=st.integers(1, 50),
)
NOISES = st.builds(
    Noise,
    source=st.sampled_from(RandomSource),
    variation_seed=st.none() | st.integers(0, 2**40),
    variation_strength=st.floats(0, 1),
    from_width=st.integers(0, 4096),
    later_offset=st.integers(0, 40_000),
    extra=st.floats(0, 1),
)
SECOND_PASSES = st.builds(
    SecondPass,
    upscaler=TEXT,
    scale=st.floats(1, 2),
    width=st.just(0) | st.integers(512, 1024),
    height=st.just(0) | st.integers(512, 1024),
    steps=st.integers(0, 1000),
    denoising_strength=st.floats(0, 1),
    cfg_scale=st.none() | st.floats(0, 100),
    prompt=TEXT,
    sampler=st.none() | TEXT,
    checkpoint=st.none() | TEXT,
)
REFINERS = st.builds(
    Refiner,
    checkpoint=TEXT,
    switch_at=st.floats(0, 1),
    by_steps=st.booleans(),
    passes=st.sampled_from(RefinerPasses),
)
REQUESTS = st.builds(
    GenerationRequest,
    prompt=TEXT,
    negative_prompt=TEXT,
    styles=st.lists(TEXT, max_size=2).map(tuple),
    noise=NOISES,
    comma_backtrack=st.integers(0, 74),
    vae=TEXT,
    tiling=st.booleans(),
    refiner=st.none() | REFINERS,
    face_restoration=st.none() | st.builds(FaceRestoration, model=TEXT, visibility=st.floats(0, 1)),
    token_merging=st.builds(TokenMerging, ratio=st.floats(0, 0.9)),
    compatibility=st.builds(Compatibility, old_karras=st.booleans()),
    size=st.builds(Size, width=SIDE, height=SIDE),
    sampling=st.builds(
        Sampling,
        sampler=TEXT,
        schedule=TEXT,
        steps=st.integers(1, 1000),
        cfg_scale=st.floats(0, 100) | st.integers(0, 100),
        eta=st.none() | st.floats(0, 1),
        options=OPTIONS,
        guidance=st.builds(Guidance, min_sigma=LEVELS, skip_early=st.floats(0, 1), pad=st.booleans()),
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
TWO_PASSES = st.builds(
    GenerationRequest, size=st.builds(Size, width=st.integers(64, 128).map(lambda n: 8 * n)), second_pass=SECOND_PASSES
)
DIGEST_OF_NOTHING = "0" * 64


@given(REQUESTS | TWO_PASSES)
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
        {"start": {"image": DIGEST_OF_NOTHING, "mask": {"image": DIGEST_OF_NOTHING, "blur": 257}}},
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
    names = {"checkpoint": "model", "vae": "None", "sampler": "Euler", "schedule": "Karras", "eta": 0.0}
    drawn = GenerationRequest().resolved(**names)  # type: ignore[arg-type]
    assert drawn.is_resolved and 0 <= (drawn.seed or 0) < 2**32
    assert GenerationRequest(seed=5).resolved(**names).seed == 5  # type: ignore[arg-type]
    assert not GenerationRequest(seed=5).is_resolved


def test_the_schema_tells_every_field() -> None:
    schema = TypeAdapter(GenerationRequest).json_schema()
    assert set(schema["properties"]) == {field.name for field in dataclasses.fields(GenerationRequest)}
    assert {"Size", "Sampling", "StartImage", "Mask", "ModuleUse"} <= set(schema["$defs"])


@pytest.mark.parametrize(
    ("second", "size", "enlarged"),
    [
        (SecondPass(scale=1.5), (192, 288), (192, 288)),
        (SecondPass(width=256), (256, 384), (256, 384)),
        (SecondPass(height=384), (256, 384), (256, 384)),
        (SecondPass(width=256, height=256), (256, 256), (256, 384)),
        (SecondPass(width=128, height=384), (128, 384), (256, 384)),
        (SecondPass(scale=1.1), (136, 208), (140, 211)),
    ],
)
def test_a_second_pass_has_the_size_that_automatic1111_gives_it(
    second: SecondPass, size: tuple[int, int], enlarged: tuple[int, int]
) -> None:
    first = Size(width=128, height=192)
    assert (second.size(first).width, second.size(first).height) == size
    assert second.enlarged(first) == enlarged


def test_pictures_of_a_variation_share_the_seed() -> None:
    varied = GenerationRequest(seed=7, noise=Noise(variation_seed=70, variation_strength=0.2), batch_count=3)
    assert [varied.seed_of(2), varied.variation_seed_of(2)] == [7, 72]
    plain = GenerationRequest(seed=7, batch_count=3)
    assert [plain.seed_of(2), plain.variation_seed_of(2)] == [9, None]
    for request in (varied, plain):
        alone = request.alone(2)
        assert (alone.pictures, alone.seed_of(0), alone.variation_seed_of(0)) == (
            1,
            request.seed_of(2),
            request.variation_seed_of(2),
        )


def test_a_second_pass_and_a_start_image_exclude_each_other() -> None:
    with pytest.raises(RequestError, match="second pass"):
        GenerationRequest(start=StartImage(image="0" * 64), second_pass=SecondPass())
