"""Every key of a parameters text, written from a field and read back into the same one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from webui.metadata.completing import completed
from webui.metadata.infotext import parse
from webui.metadata.keys import changed
from webui.metadata.reading import Known, to_request
from webui.metadata.writing import InfotextFacts, Walk, pairs, write
from webui.request import (
    Compatibility,
    Emphasis,
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
    Template,
    TokenMerging,
)

DIGEST = "0" * 64
PLAIN = GenerationRequest(
    prompt="a (cat:1.1) [by:near:3] the sea",
    size=Size(width=128, height=192),
    sampling=Sampling(sampler="Euler", schedule="Karras", steps=7),
    seed=5,
    noise=Noise(source=RandomSource.GPU),
    checkpoint="folder/star",
    vae="None",
)
FACTS = InfotextFacts(
    model_name="folder/star",
    model_hash="ab" * 32,
    seed=5,
    walk=Walk(label="Karras", default_eta=1.0),
    second_walk=Walk(label="Karras", default_eta=1.0),
    titles={"folder/moon": "moon [0123456789]"},
)
ALWAYS = {
    "Steps": "7",
    "Sampler": "Euler",
    "Schedule type": "Karras",
    "CFG scale": "7.0",
    "Seed": "5",
    "Size": "128x192",
    "Model hash": "ababababab",
    "Model": "star",
}
UPSCALED = {"Denoising strength": "0.7", "Hires upscale": "2.0", "Hires upscaler": "Latent"}
FROM_PICTURE = {"Denoising strength": "0.75"}
MASKED = {**FROM_PICTURE, "Mask blur": "4"}


def sampled(**others: Any) -> GenerationRequest:
    return replace(PLAIN, sampling=replace(PLAIN.sampling, **others))


def noisy(**others: Any) -> GenerationRequest:
    return replace(PLAIN, noise=replace(PLAIN.noise, **others))


def upscaled(**others: Any) -> GenerationRequest:
    return replace(PLAIN, second_pass=SecondPass(**others))


def started(**others: Any) -> GenerationRequest:
    return replace(PLAIN, start=StartImage(image=DIGEST, **others))


def masked(**others: Any) -> GenerationRequest:
    return started(mask=Mask(image=DIGEST, **others))


CASES: list[tuple[GenerationRequest, dict[str, str]]] = [
    (PLAIN, {}),
    (replace(PLAIN, face_restoration=FaceRestoration(model="GFPGAN")), {"Face restoration": "GFPGAN"}),
    (
        noisy(variation_seed=9, variation_strength=0.25),
        {"Variation seed": "9", "Variation seed strength": "0.25"},
    ),
    (noisy(from_width=256, from_height=64), {"Seed resize from": "256x64"}),
    (started(denoising_strength=0.4), {"Denoising strength": "0.4"}),
    (replace(PLAIN, clip_skip=2), {"Clip skip": "2"}),
    (noisy(later_offset=31337), {"ENSD": "31337"}),
    (replace(PLAIN, token_merging=TokenMerging(ratio=0.5)), {"Token merging ratio": "0.5"}),
    (
        replace(upscaled(), token_merging=TokenMerging(ratio=0.5, second_pass=0.3)),
        {"Token merging ratio": "0.5", "Token merging ratio hr": "0.3", **UPSCALED},
    ),
    (noisy(source=RandomSource.CPU), {"RNG": "CPU"}),
    (noisy(source=RandomSource.NV), {"RNG": "NV"}),
    (replace(PLAIN, tiling=True), {"Tiling": "True"}),
    (upscaled(), UPSCALED),
    (
        upscaled(width=256, denoising_strength=0.5, steps=4, upscaler="Lanczos"),
        {"Denoising strength": "0.5", "Hires resize": "256x0", "Hires steps": "4", "Hires upscaler": "Lanczos"},
    ),
    (upscaled(checkpoint="folder/moon"), {**UPSCALED, "Hires checkpoint": "moon [0123456789]"}),
    (upscaled(sampler="Heun", schedule="Automatic"), {**UPSCALED, "Hires sampler": "Heun"}),
    (
        upscaled(prompt="a dog, wet", negative_prompt="dry"),
        {**UPSCALED, "Hires prompt": "a dog, wet", "Hires negative prompt": "dry"},
    ),
    (upscaled(cfg_scale=3), {**UPSCALED, "Hires CFG Scale": "3.0"}),
    (upscaled(eta=0.5), {**UPSCALED, "Hires eta": "0.5"}),
    (
        replace(PLAIN, refiner=Refiner(checkpoint="folder/moon")),
        {"Refiner": "moon [0123456789]", "Refiner switch at": "0.8"},
    ),
    (
        replace(upscaled(), refiner=Refiner(checkpoint="moon", by_steps=True, passes=RefinerPasses.BOTH)),
        {
            **UPSCALED,
            "Refiner switch by sampling steps": "True",
            "Hires refiner": "both passes",
            "Refiner": "moon",
            "Refiner switch at": "0.8",
        },
    ),
    (masked(), MASKED),
    (masked(mode=MaskMode.NOT_MASKED), {**MASKED, "Mask mode": "Inpaint not masked"}),
    (
        masked(area=InpaintArea.ONLY_MASKED, padding=8),
        {**MASKED, "Inpaint area": "Only masked", "Masked area padding": "8"},
    ),
    (masked(content=MaskedContent.LATENT_NOTHING), {**MASKED, "Masked content": "latent nothing"}),
    (
        masked(blur=0, soft=SoftInpainting(preservation_strength=0.25)),
        {
            **FROM_PICTURE,
            "Soft inpainting enabled": "True",
            "Soft inpainting schedule bias": "1",
            "Soft inpainting preservation strength": "0.25",
            "Soft inpainting transition contrast boost": "4",
            "Soft inpainting mask influence": "0",
            "Soft inpainting difference threshold": "0.5",
            "Soft inpainting difference contrast": "2",
            "Mask blur": "0",
        },
    ),
    (started(noise_multiplier=0.9), {**FROM_PICTURE, "Noise multiplier": "0.9"}),
    (replace(started(), noise=replace(PLAIN.noise, extra=0.1)), {**FROM_PICTURE, "Extra noise": "0.1"}),
    (sampled(options=SamplerOptions(full_noise=True)), {"SGM noise multiplier": "True"}),
    (
        sampled(options=SamplerOptions(sigma_min=0.1, sigma_max=10, rho=5)),
        {"Schedule min sigma": "0.1", "Schedule max sigma": "10.0", "Schedule rho": "5.0"},
    ),
    (sampled(options=SamplerOptions(discard_penultimate=True)), {"Discard penultimate sigma": "True"}),
    (sampled(eta=0.5), {"Eta": "0.5"}),
    (
        sampled(options=SamplerOptions(s_churn=5, s_tmin=0.1, s_tmax=9, s_noise=1.1)),
        {"Sigma churn": "5.0", "Sigma tmin": "0.1", "Sigma tmax": "9.0", "Sigma noise": "1.1"},
    ),
    (
        sampled(guidance=Guidance(min_sigma=3, min_sigma_all=True, skip_early=0.2)),
        {"Skip Early CFG": "0.2", "NGMS": "3.0", "NGMS all steps": "True"},
    ),
    (sampled(guidance=Guidance(pad=True)), {"Pad conds": "True"}),
    (sampled(guidance=Guidance(pad_v0=True)), {"Pad conds v0": "True"}),
    (sampled(guidance=Guidance(rescale=0.7)), {"CFG rescale": "0.7"}),
    (sampled(options=SamplerOptions(zero_terminal_snr=True)), {"Noise Schedule": "Zero Terminal SNR"}),
    *((replace(PLAIN, emphasis=mode), {"Emphasis": mode.value}) for mode in Emphasis if mode is not Emphasis.ORIGINAL),
    (
        replace(PLAIN, compatibility=Compatibility(old_prompt_editing=True, downcast_alphas=True)),
        {"Old prompt editing timelines": "True", "Downcast alphas_cumprod": "True"},
    ),
    (
        replace(PLAIN, template=Template(prompt="a {cat|dog}, wet", negative_prompt="__x__")),
        {"Template": "a {cat|dog}, wet", "Negative Template": "__x__"},
    ),
]


@pytest.mark.parametrize(("request_", "further"), CASES, ids=[str(list(further)) for _, further in CASES])
def test_a_field_is_written_and_read_back(request_: GenerationRequest, further: dict[str, str]) -> None:
    facts = replace(FACTS, variation_seed=request_.noise.variation_seed)
    if request_.second_pass is None:
        facts = replace(facts, second_walk=None)
    if request_.second_pass and request_.second_pass.sampler:
        facts = replace(facts, second_walk=Walk(label="Automatic"), walk=replace(facts.walk, default_schedule="Karras"))
    said = pairs(request_, facts)
    assert {key: value for key, value in said.items() if key != "Version"} == {**ALWAYS, **further}
    back = to_request(parse(write(request_, facts)), GenerationRequest())
    assert back.unmapped == ()
    expected = replace(request_, checkpoint="star [ababababab]", start=None)
    for path in ("second_pass.checkpoint", "refiner.checkpoint"):
        if "folder/moon" in str(getattr(expected, path.partition(".")[0])):
            expected = changed(expected, path, "moon [0123456789]")
    if expected.second_pass and expected.second_pass.sampler:
        expected = changed(expected, "second_pass.schedule", None)  # it takes the default schedules to know better
    assert back.request == expected
    assert completed(back.request, back.start, request_).start == request_.start


def test_what_has_no_effect_is_not_written() -> None:
    """The moments of AUTOMATIC1111: by sampler and schedule."""
    options = SamplerOptions(s_churn=5, s_noise=1.1, sigma_min=1, sigma_max=9, rho=5, full_noise=True)
    options = replace(options, discard_penultimate=True)
    noise = replace(PLAIN.noise, later_offset=3, extra=0.5, variation_seed=4, from_width=64)
    request = replace(sampled(options=options, eta=0.5, guidance=Guidance(pad=True)), noise=noise)
    quiet = Walk(label="Automatic", takes_churn=False, takes_noise_scale=False, on_timesteps=True, draws_noise=False)
    said = pairs(request, replace(FACTS, walk=quiet, second_walk=None, padded=False))
    assert [*said] == [*ALWAYS, "Version"]


def test_the_beta_schedule_always_says_its_shape_and_rho_only_its_own_schedules() -> None:
    options = SamplerOptions(rho=7, beta_beta=0.5)
    for label, further in {
        "Beta": {"Beta schedule alpha": "0.6", "Beta schedule beta": "0.5"},
        "Karras": {},
        "Polyexponential": {"Schedule rho": "7.0"},
        "Exponential": {},
    }.items():
        facts = replace(FACTS, walk=Walk(label=label), second_walk=None)
        said = pairs(sampled(schedule=label, options=options), facts)
        assert {key: value for key, value in said.items() if "schedule " in key or "rho" in key} == further


def test_levels_are_said_where_the_sampler_spans_them_itself() -> None:
    facts = replace(FACTS, walk=Walk(label="Automatic", spans_levels=True), second_walk=None)
    said = pairs(sampled(options=SamplerOptions(sigma_max=9)), facts)
    assert said["Schedule max sigma"] == "9.0"


@pytest.mark.parametrize(
    ("prompt", "modes"), [("a b", ""), ("a BREAK b", "None"), ("a\\\\b", "None"), ("(a", "No norm None")]
)
def test_emphasis_is_said_where_the_prompt_has_something_to_read(prompt: str, modes: str) -> None:
    for mode in (Emphasis.NO_NORM, Emphasis.NONE):
        said = pairs(replace(PLAIN, prompt=prompt, emphasis=mode), replace(FACTS, second_walk=None))
        assert said.get("Emphasis") == (mode.value if mode.value in modes else None)


def test_a_vae_of_a_file_is_named_with_its_hash() -> None:
    facts = replace(FACTS, vae="sea.safetensors", vae_hash="cd" * 32, second_walk=None)
    text = write(replace(PLAIN, vae="sea"), facts)
    assert "Model: star, VAE hash: cdcdcdcdcd, VAE: sea.safetensors, Version" in text
    assert to_request(parse(text), GenerationRequest()).request.vae == "sea.safetensors [cdcdcdcdcd]"


@pytest.mark.parametrize("first_default", [None, "Karras"])
@pytest.mark.parametrize("second_default", [None, "Karras", "Exponential"])
@pytest.mark.parametrize("first", [None, "Karras", "Beta"])
@pytest.mark.parametrize("second", [None, "Karras", "Beta"])
def test_the_second_passs_schedule_is_understood(
    first: str | None, second: str | None, first_default: str | None, second_default: str | None
) -> None:
    """What a sampler's default is called decides; None stands for "Automatic" where it chooses."""
    labels = [first or first_default or "Automatic", second or second_default or "Automatic"]
    walks = [
        Walk(label=label, default_schedule=default)
        for label, default in zip(labels, (first_default, second_default), strict=True)
    ]
    facts = replace(FACTS, walk=walks[0], second_walk=walks[1])
    request = replace(upscaled(sampler="Heun", schedule=labels[1]), sampling=Sampling(sampler="Euler"))
    defaults = {"Euler": first_default, "Heun": second_default}
    back = to_request(parse(write(request, facts)), GenerationRequest(), known(defaults)).request
    assert back.second_pass is not None
    schedule = back.second_pass.schedule or back.sampling.schedule
    assert (second_default or "Automatic" if schedule == "Automatic" else schedule) == labels[1]


def known(defaults: dict[str, str | None]) -> Known:
    return Known(default_schedule=lambda sampler: defaults[sampler])


def test_the_recipe_completes_what_no_text_has() -> None:
    recorded = replace(
        started(
            resize_mode=ResizeMode.FILL,
            color_correction=True,
            exact_steps=True,
            background="#123456",
            mask=Mask(image=DIGEST, blur=3, blur_y=9, padding=7, round=False, overlay=False),
        ),
        comma_backtrack=0,
        modules=(ModuleUse(name="controlnet"),),
        compatibility=Compatibility(old_karras=True, whole_timesteps=True),
        sampling=replace(PLAIN.sampling, options=SamplerOptions(unipc_order=2)),
        face_restoration=FaceRestoration(model="GFPGAN", visibility=0.5, weight=0.1),
    )
    back = to_request(parse(write(recorded, replace(FACTS, second_walk=None))), GenerationRequest())
    whole = completed(back.request, {**back.start, "mask": {}}, recorded)
    assert whole == replace(recorded, checkpoint="star [ababababab]")
