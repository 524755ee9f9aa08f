"""The page's fields and the request say the same thing, in both directions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import RequestError
from webui.request import (
    MAX_SEED,
    GenerationRequest,
    InpaintArea,
    Mask,
    MaskedContent,
    MaskMode,
    ResizeMode,
    Sampling,
    Size,
    StartImage,
)
from webui.ui.form import (
    DEFAULTS,
    FIELDS,
    RECOMMENDED,
    START_FIELDS,
    follow_recommendation,
    recommendation,
    request_from_values,
    values_from_request,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
SIDE = st.integers(8, 512).map(lambda eighths: eighths * 8)
DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
SHARE = st.floats(0, 1)
MASKS = st.builds(
    Mask,
    image=DIGEST,
    blur=st.integers(0, 64),
    mode=st.sampled_from(MaskMode),
    content=st.sampled_from(MaskedContent),
    area=st.sampled_from(InpaintArea),
    padding=st.integers(0, 256),
)
REQUESTS = st.builds(
    GenerationRequest,
    prompt=TEXT,
    negative_prompt=TEXT,
    size=st.builds(Size, width=SIDE, height=SIDE),
    sampling=st.builds(
        Sampling,
        sampler=st.sampled_from(["Euler a", "DPM++ 2M", "DDIM"]),
        schedule=st.sampled_from(["Automatic", "Karras"]),
        steps=st.integers(1, 1000),
        cfg_scale=st.floats(0, 100),
        eta=st.none() | SHARE,
    ),
    seed=st.none() | st.integers(0, MAX_SEED - 64_000),
    batch_size=st.integers(1, 64),
    batch_count=st.integers(1, 1000),
    clip_skip=st.integers(1, 12),
    checkpoint=st.none() | st.text("abc./ -[]", min_size=1, max_size=20),
    start=st.none()
    | st.builds(
        StartImage,
        image=DIGEST,
        denoising_strength=SHARE,
        resize_mode=st.sampled_from(ResizeMode),
        mask=st.none() | MASKS,
    ),
)


@given(REQUESTS)
def test_a_request_survives_the_form(request_: GenerationRequest) -> None:
    shown = {**DEFAULTS, **values_from_request(request_.to_dict())}
    assert request_from_values(shown) == request_


@given(REQUESTS)
def test_numbers_that_the_browser_sends_as_floats_are_whole_again(request_: GenerationRequest) -> None:
    shown = {**DEFAULTS, **values_from_request(request_.to_dict())}
    sent = {name: float(value) if isinstance(value, int) and value < 2**53 else value for name, value in shown.items()}
    assert request_from_values(sent) == request_


def test_a_fresh_page_asks_for_the_default_request() -> None:
    assert request_from_values(DEFAULTS) == GenerationRequest()
    assert set(DEFAULTS) == {*FIELDS, *START_FIELDS}


def test_the_hidden_fields_of_img2img_do_not_reach_a_request_without_a_picture() -> None:
    assert request_from_values({**DEFAULTS, "denoising_strength": 0.3, "mask": "f" * 64}).start is None


def test_without_a_mask_the_mask_settings_do_not_count() -> None:
    start = request_from_values({**DEFAULTS, "image": "a" * 64, "mask_blur": 9}).start
    assert start == StartImage(image="a" * 64)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("steps", None, "Sampling steps is empty; type a number."),
        ("steps", 20.5, "Sampling steps is 20.5; it must be a whole number."),
        ("width", 500, "Width is 500; it must be a multiple of 8, for example 496."),
        ("seed", -7, "Seed is -7; it must be from 0 to 9007199254740991."),
        ("eta", "much", "Eta is empty; type a number."),
    ],
)
def test_a_wrong_field_is_one_sentence(field: str, value: object, sentence: str) -> None:
    with pytest.raises(RequestError) as caught:
        request_from_values({**DEFAULTS, field: value})
    assert str(caught.value) == sentence


def test_what_is_not_a_stored_picture_is_refused() -> None:
    with pytest.raises(RequestError, match="SHA-256"):
        request_from_values({**DEFAULTS, "image": "../../etc/passwd"})


def test_choosing_a_checkpoint_sets_only_what_nobody_changed() -> None:
    before = recommendation(512, {})
    after = recommendation(128, {"sampler": "Euler", "cfg_scale": 4.0, "unknown": 1})
    untouched = dict(before)
    assert follow_recommendation(untouched, before, after) == {
        "width": 128,
        "height": 128,
        "sampler": "Euler",
        "cfg_scale": 4.0,
    }
    touched = {**before, "width": 768, "sampler": "Heun"}
    assert follow_recommendation(touched, before, after) == {"height": 128, "cfg_scale": 4.0}
    assert set(before) == set(RECOMMENDED)
