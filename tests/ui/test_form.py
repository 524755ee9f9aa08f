"""The page's fields and the request say the same thing, in both directions."""

from __future__ import annotations

import typing
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import RequestError
from webui.metadata import infotext
from webui.metadata.reading import to_request
from webui.request import (
    MAX_SEED,
    Compatibility,
    FaceRestoration,
    GenerationRequest,
    Guidance,
    Mask,
    ModuleUse,
    Noise,
    Refiner,
    SamplerOptions,
    Sampling,
    SecondPass,
    Size,
    SoftInpainting,
    StartImage,
    TokenMerging,
)
from webui.ui.fields import SWITCHES, TABLE, TOP, WITHOUT_WIDGET, fields_of, leaves
from webui.ui.form import (
    DEFAULTS,
    FIELDS,
    RECOMMENDED,
    START_FIELDS,
    follow_recommendation,
    homeless,
    recommendation,
    request_from_values,
    stated_values,
    values_from_request,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
NAME = st.text("abc./-[]", min_size=1, max_size=20)
SIDE = st.integers(8, 256).map(lambda eighths: eighths * 8)
DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
SHARE = st.floats(0, 1)
LEVEL = st.floats(0, 10_000)


def records(kind: Any, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Records with these fields; flags and choices of one word need not be named."""
    hints = typing.get_type_hints(kind)
    for name, hint in hints.items():
        if hint is bool:
            fields.setdefault(name, st.booleans())
        elif isinstance(hint, type) and issubclass(hint, StrEnum):
            fields.setdefault(name, st.sampled_from(hint))
    assert set(fields) == set(hints), "a field of the request that this test does not know"
    return st.builds(kind, **fields)


SAMPLER_OPTIONS = records(
    SamplerOptions,
    s_churn=st.floats(0, 100),
    s_tmin=LEVEL,
    s_tmax=LEVEL,
    s_noise=st.floats(0, 2),
    sigma_min=LEVEL,
    sigma_max=LEVEL,
    rho=st.floats(0, 1000),
    beta_alpha=st.floats(0.01, 100),
    beta_beta=st.floats(0.01, 100),
    unipc_order=st.integers(1, 50),
)
SAMPLING = records(
    Sampling,
    sampler=st.sampled_from(["Euler a", "DPM++ 2M", "DDIM"]),
    schedule=st.sampled_from(["Automatic", "Karras"]),
    steps=st.integers(1, 1000),
    cfg_scale=st.floats(0, 100),
    eta=st.none() | SHARE,
    options=SAMPLER_OPTIONS,
    guidance=records(Guidance, min_sigma=LEVEL, skip_early=SHARE, rescale=SHARE),
)
NOISE = records(
    Noise,
    variation_seed=st.none() | st.integers(0, MAX_SEED - 64_000),
    variation_strength=SHARE,
    from_width=st.integers(0, 4096),
    from_height=st.integers(0, 4096),
    later_offset=st.integers(0, MAX_SEED),
    extra=SHARE,
)


def second_passes(side: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    return records(
        SecondPass,
        upscaler=NAME,
        scale=st.floats(1, 1.9),
        width=side,
        height=side,
        steps=st.integers(0, 1000),
        denoising_strength=SHARE,
        cfg_scale=st.none() | st.floats(0, 100),
        sampler=st.none() | NAME,
        schedule=st.none() | NAME,
        eta=st.none() | SHARE,
        prompt=TEXT,
        negative_prompt=TEXT,
        checkpoint=st.none() | NAME,
    )


SOFT = records(
    SoftInpainting,
    schedule_bias=st.floats(0, 8),
    preservation_strength=st.floats(0, 8),
    transition_contrast_boost=st.floats(1, 32),
    mask_influence=SHARE,
    difference_threshold=st.floats(0, 8),
    difference_contrast=st.floats(0, 8),
)
MASKS = records(
    Mask,
    image=DIGEST,
    blur=st.integers(0, 64),
    padding=st.integers(0, 256),
    blur_y=st.none() | st.integers(0, 64),
    soft=st.none() | SOFT,
    latent=st.none(),
    part=st.none(),
)
START = records(
    StartImage,
    image=DIGEST,
    denoising_strength=SHARE,
    mask=st.none() | MASKS,
    upscaler=NAME,
    noise_multiplier=st.floats(0, 2),
    background=st.text("0123456789abcdef", min_size=6, max_size=6).map("#{}".format),
)


def generation_requests(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return records(
        GenerationRequest,
        prompt=TEXT,
        negative_prompt=TEXT,
        styles=st.lists(NAME, max_size=3).map(tuple),
        size=st.builds(Size, width=SIDE, height=SIDE),
        sampling=SAMPLING,
        seed=st.none() | st.integers(0, MAX_SEED - 64_000),
        noise=NOISE,
        batch_size=st.integers(1, 64),
        batch_count=st.integers(1, 1000),
        clip_skip=st.integers(1, 12),
        comma_backtrack=st.integers(0, 74),
        template=st.none(),
        checkpoint=st.none() | NAME,
        vae=NAME,
        refiner=st.none() | records(Refiner, checkpoint=NAME, switch_at=SHARE),
        face_restoration=st.none() | records(FaceRestoration, model=NAME, visibility=SHARE, weight=SHARE),
        token_merging=records(TokenMerging, ratio=st.floats(0, 0.9), second_pass=st.floats(0, 0.9)),
        compatibility=records(Compatibility),
        modules=st.lists(st.builds(ModuleUse, name=NAME, options=st.dictionaries(NAME, SHARE | TEXT)), max_size=2).map(
            tuple
        ),
        script=st.none(),
        **parts,
    )


REQUESTS = st.one_of(
    generation_requests(second_pass=st.none(), start=st.none() | START),
    generation_requests(second_pass=second_passes(st.just(0)) | second_passes(SIDE), start=st.none()),
)


def test_every_leaf_of_the_request_has_a_field_or_a_reason() -> None:
    placed = [field.path for field in TABLE.values()]
    assert len(placed) == len(set(placed))
    assert {*placed, *WITHOUT_WIDGET} == {path for path, _ in leaves()}
    assert not {*placed} & {*WITHOUT_WIDGET}
    assert all(WITHOUT_WIDGET.values()), "every one without a widget says why"


def test_every_field_stands_somewhere() -> None:
    shown = {*TOP, *fields_of("txt2img"), *fields_of("img2img")}
    assert shown == {*TABLE, *SWITCHES}


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
    assert not {*FIELDS} & {*START_FIELDS}


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
        ("eta", "much", "Eta is 'much'; type a number."),
    ],
)
def test_a_wrong_field_is_one_sentence(field: str, value: object, sentence: str) -> None:
    with pytest.raises(RequestError) as caught:
        request_from_values({**DEFAULTS, field: value})
    assert str(caught.value) == sentence


def test_a_refiner_that_nobody_chose_is_one_sentence() -> None:
    with pytest.raises(RequestError) as caught:
        request_from_values({**DEFAULTS, "enable_refiner": True})
    assert str(caught.value) == "Refiner is on, and no checkpoint is chosen; choose one."


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


def test_a_switch_that_is_off_keeps_its_fields_out() -> None:
    values = {**DEFAULTS, "hr_scale": 3, "refiner_checkpoint": "b", "face_model": "f", "variation_strength": 0.4}
    assert request_from_values(values) == GenerationRequest()
    on = request_from_values({**values, "enable_hr": True, "enable_refiner": True, "restore_faces": True})
    assert on.second_pass == SecondPass(scale=3.0)
    assert on.refiner == Refiner(checkpoint="b")
    assert on.face_restoration == FaceRestoration(model="f")
    assert request_from_values({**values, "subseed_show": True}).noise == Noise(variation_strength=0.4)


def test_soft_inpainting_counts_with_a_mask_alone() -> None:
    values = {**DEFAULTS, "soft_inpainting": True, "image": "a" * 64}
    start = request_from_values(values).start
    assert start is not None and start.mask is None
    masked = request_from_values({**values, "mask": "b" * 64}).start
    assert masked is not None and masked.mask is not None and masked.mask.soft == SoftInpainting()


def read(text: str) -> dict[str, Any]:
    back = to_request(infotext.parse(text), GenerationRequest())
    return stated_values(back, back.items)


def test_what_a_text_does_not_say_is_not_left_from_before() -> None:
    values = read("a cat\nSteps: 9, Sampler: Euler, CFG scale: 5, Seed: 3, Size: 64x64")
    assert values["steps"] == 9 and values["seed"] == 3
    stays = {"checkpoint", "batch_count", "batch_size", "denoising_strength", "resize_mode"}
    assert not stays & set(values)
    reset = {name: value for name, value in DEFAULTS.items() if name in values}
    said = {
        "rng": "GPU",
        "prompt": "a cat",
        "steps": 9,
        "sampler": "Euler",
        "cfg_scale": 5,
        "seed": 3,
        "width": 64,
        "height": 64,
    }
    assert values == {**reset, **said}
    assert {"enable_hr", "hr_prompt", "clip_skip", "s_churn", "mask_mode", "soft_inpainting", "styles"} <= set(reset)


def test_a_text_without_settings_is_a_prompt_and_changes_nothing_else() -> None:
    assert read("just words") == {"prompt": "just words", "negative_prompt": ""}


def test_a_mask_that_a_text_speaks_of_comes_back_without_its_picture() -> None:
    text = "x\nSteps: 9, Sampler: Euler, CFG scale: 5, Seed: 3, Size: 64x64, Denoising strength: 0.4, Mask blur: 8"
    values = read(f"{text}, Inpaint area: Only masked, Masked area padding: 16")
    assert values["denoising_strength"] == 0.4
    assert values["mask_blur"] == 8 and values["inpaint_area"] == "Only masked" and values["padding"] == 16
    assert "image" not in values and "mask" not in values


def test_what_a_tab_cannot_show_has_a_name() -> None:
    assert homeless(GenerationRequest(), "txt2img") == []
    hires = GenerationRequest(second_pass=SecondPass(), modules=(ModuleUse(name="controlnet"),))
    assert homeless(hires, "img2img") == ["Hires. fix (it belongs to txt2img)"], "modules have panels in both tabs"
    grown = StartImage(image="a" * 64, mask=Mask(image="b" * 64, latent="c" * 64))
    assert homeless(GenerationRequest(start=grown), "img2img") == ["the masks of outpainting (its script draws them)"]
    assert homeless(GenerationRequest(start=StartImage(image="a" * 64)), "txt2img") == [
        "the start image (it belongs to img2img)"
    ]
