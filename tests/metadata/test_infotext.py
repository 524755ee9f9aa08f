"""The parameters text against what AUTOMATIC1111 1.10.1 wrote, and against itself with hostile prompts."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from webui.metadata.infotext import Infotext, parse, quote, trimmed, unquote
from webui.metadata.reading import Known, to_request
from webui.metadata.writing import InfotextFacts, Walk, write
from webui.request import (
    GenerationRequest,
    InpaintArea,
    Mask,
    MaskedContent,
    MaskMode,
    Noise,
    RandomSource,
    Sampling,
    SecondPass,
    Size,
    StartImage,
)

HASH = "45154eb536" + "0" * 54
DIGEST = "0" * 64
CAT = "a red cat on a wooden chair, masterpiece"
HEAD = f"{CAT}\nNegative prompt: blurry, lowres\n"
PLAIN = "Schedule type: Automatic, CFG scale: 7.0, Seed: 1234"
MODEL = "Model hash: 45154eb536, Model: oracle-sd15"
START = StartImage(image=DIGEST, denoising_strength=0.75)


def asked(sampler: str = "Euler", steps: int = 6, width: int = 128, **others: object) -> GenerationRequest:
    sampling = Sampling(sampler=sampler, steps=steps)
    request = GenerationRequest(
        prompt=CAT, negative_prompt="blurry, lowres", size=Size(width=width, height=128), sampling=sampling, seed=1234
    )
    return replace(request, **others)


def facts(label: str = "Automatic", **others: object) -> InfotextFacts:
    known = {"model_name": "oracle-sd15", "model_hash": HASH, "seed": 1234} | others
    return InfotextFacts(**{"walk": Walk(label=label), **known})


def masked(**options: object) -> StartImage:
    return replace(START, mask=Mask(image=DIGEST, **options))


# What AUTOMATIC1111 1.10.1 answered, by name of the case, and the request that it answers.
GOLDEN: dict[str, tuple[GenerationRequest, InfotextFacts, str]] = {
    "base": (
        asked(),
        facts(),
        f"{HEAD}Steps: 6, Sampler: Euler, {PLAIN}, Size: 128x128, {MODEL}, RNG: CPU, Version: 1.10.1",
    ),
    "clip_skip_2": (
        asked(steps=4, clip_skip=2),
        facts(),
        f"{HEAD}Steps: 4, Sampler: Euler, {PLAIN}, Size: 128x128, {MODEL}, Clip skip: 2, RNG: CPU, Version: 1.10.1",
    ),
    "sampler_dpmpp_2m": (
        asked("DPM++ 2M"),
        facts("Karras"),
        f"{HEAD}Steps: 6, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.0, Seed: 1234, Size: 128x128, "
        f"{MODEL}, RNG: CPU, Version: 1.10.1",
    ),
    "eta_1_ddim": (
        asked(sampling=Sampling(sampler="DDIM", steps=6, eta=1)),
        facts(walk=Walk(label="Automatic", default_eta=0.0, on_timesteps=True)),
        f"{HEAD}Steps: 6, Sampler: DDIM, {PLAIN}, Size: 128x128, {MODEL}, RNG: CPU, Eta DDIM: 1.0, Version: 1.10.1",
    ),
    "i2i_denoise_0_75": (
        asked(start=START),
        facts(),
        f"{HEAD}Steps: 6, Sampler: Euler, {PLAIN}, Size: 128x128, {MODEL}, "
        "Denoising strength: 0.75, RNG: CPU, Version: 1.10.1",
    ),
    "inpaint_fill_latent_noise": (
        asked(width=192, start=masked(content=MaskedContent.LATENT_NOISE)),
        facts(),
        f"{HEAD}Steps: 6, Sampler: Euler, {PLAIN}, Size: 192x128, {MODEL}, "
        "Denoising strength: 0.75, RNG: CPU, Mask blur: 4, Masked content: latent noise, Version: 1.10.1",
    ),
    "inpaint_default_fields": (
        asked(start=masked(area=InpaintArea.ONLY_MASKED, padding=0, content=MaskedContent.FILL)),
        facts(),
        f"{HEAD}Steps: 6, Sampler: Euler, {PLAIN}, Size: 128x128, {MODEL}, "
        "Denoising strength: 0.75, RNG: CPU, Mask blur: 4, Inpaint area: Only masked, Masked area padding: 0, "
        "Masked content: fill, Version: 1.10.1",
    ),
    "lora_both": (
        asked(steps=4, prompt="a red cat <lora:oracle-lora:0.6><lora:oracle-locon:0.8>"),
        facts(lora_hashes={"oracle-lora": "2c4f0ed17583", "oracle-locon": "f94cf7a3ee62"}),
        "a red cat <lora:oracle-lora:0.6><lora:oracle-locon:0.8>\nNegative prompt: blurry, lowres\n"
        f"Steps: 4, Sampler: Euler, {PLAIN}, Size: 128x128, {MODEL}, "
        'RNG: CPU, Lora hashes: "oracle-lora: 2c4f0ed17583, oracle-locon: f94cf7a3ee62", Version: 1.10.1',
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_we_write_what_automatic1111_wrote(case: str) -> None:
    request, known, text = GOLDEN[case]
    assert write(request, known) == text.replace("Version: 1.10.1", f"Version: webui {known.version}")


@pytest.mark.parametrize("case", GOLDEN)
def test_we_read_what_automatic1111_wrote(case: str) -> None:
    request, known, text = GOLDEN[case]
    back = to_request(parse(text), GenerationRequest())
    sampling = replace(request.sampling, schedule=known.walk.label)
    expected = replace(request, sampling=sampling, checkpoint="oracle-sd15 [45154eb536]", vae="None", start=None)
    assert back.request == expected
    assert start_of(back.start) == request.start
    assert back.unmapped == tuple(f"{key}: {value}" for key, value in known.extra.items())


def start_of(start: object) -> StartImage | None:
    """The start image whose numbers were read back."""
    if not start:
        return None
    plain = json.loads(json.dumps(start))  # plain values, as a form or the API would hand them on
    mask = {"mask": {"image": DIGEST, **plain["mask"]}} if "mask" in plain else {}
    return GenerationRequest.from_dict({"start": {"image": DIGEST, **plain, **mask}}).start


def test_hires_fix_is_a_second_pass_and_the_unknown_is_told() -> None:
    """The golden case hr_prompt: here the denoising strength is not that of a start image."""
    text = (
        f"{HEAD}Steps: 3, Sampler: Euler, {PLAIN}, Size: 128x128, {MODEL}, "
        "Denoising strength: 0.7, RNG: NV, Hires prompt: a blue dog, Hires upscale: 1.5, Hires upscaler: Latent, "
        'TI hashes: "oracle-ti: de78d8653b9e", Script: Loopback, Version: v1.10.1'
    )
    back = to_request(parse(text), GenerationRequest())
    assert back.start == {}
    assert back.request.second_pass == SecondPass(scale=1.5, upscaler="Latent", prompt="a blue dog")
    assert back.request.noise.source is RandomSource.NV
    assert back.unmapped == ("Script: Loopback",)
    assert back.program == "AUTOMATIC1111"


def test_absent_keys_mean_the_defaults_of_automatic1111() -> None:
    base = GenerationRequest(
        prompt="old",
        clip_skip=2,
        sampling=Sampling(schedule="Karras", eta=0.5, steps=7),
        checkpoint="mine",
        batch_size=3,
    )
    back = to_request(parse("a\nSampler: Euler, Seed: -1, CFG scale: 5, Mask blur: 8"), base)
    sampling = Sampling(sampler="Euler", schedule="Automatic", steps=7, cfg_scale=5.0, eta=None)
    gpu = Noise(source=RandomSource.GPU)
    assert back.request == replace(base, prompt="a", clip_skip=1, sampling=sampling, seed=None, noise=gpu)
    assert back.start == {
        "mask": {
            "blur": 8,
            "mode": "Inpaint masked",
            "content": "original",
            "area": "Whole picture",
            "padding": 32,
        }
    }


def test_old_combined_sampler_names_are_split_by_the_callers_rule() -> None:
    infotext = parse("a\nSteps: 3, Sampler: DPM++ 2M Karras, Seed: 1")
    known = Known(split_sampler=lambda name: (name.removesuffix(" Karras"), "Karras"))
    back = to_request(infotext, GenerationRequest(), known)
    assert (back.request.sampling.sampler, back.request.sampling.schedule) == ("DPM++ 2M", "Karras")


@pytest.mark.parametrize(
    "pair",
    [
        *("Steps: 0", "Steps: many", "CFG scale: nan", "Size: 500x500", "Size: 512", "Clip skip: 99", "Sampler: "),
        *("Seed: " + "9" * 30, "Mask blur: 900", "Masked content: gold", "Denoising strength: 2", "Batch size: 0"),
    ],
)
def test_values_that_cannot_be_are_told_and_change_nothing(pair: str) -> None:
    text = f"a\n{pair}, One: 1, Two: 2, RNG: CPU"
    back = to_request(parse(text), GenerationRequest(checkpoint="mine"))
    assert pair in back.unmapped
    expected = GenerationRequest(prompt="a", checkpoint="mine")
    assert replace(back.request, sampling=expected.sampling) == expected
    assert back.request.sampling in (Sampling(), Sampling(schedule="Automatic"))


def test_a_plain_text_is_all_prompt() -> None:
    assert parse("a cat\nNegative prompt: dog\nmore dog") == Infotext("a cat", "dog\nmore dog", {})
    assert parse("a cat, Steps: 20, Seed: 1").prompt == "a cat, Steps: 20, Seed: 1"  # two pairs are no parameter line
    assert parse("") == Infotext("", "", {})


# AUTOMATIC1111's expression for the pairs of a line; quadratic on hostile lines, so it judges short ones only.
PAIRS = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
lines = st.lists(
    st.sampled_from([*'ab:, "\\-/\t', "Steps", ": ", ', "', '\\"', "a b: ", ': "x, y",', "é", "1"]), max_size=30
).map("".join)


@given(lines)
@example('a: b, cd: "e, f" g, hi: "j\\"k", lm:,no:')
def test_pairs_are_those_of_automatic1111(line: str) -> None:
    """Only trailing white space of a value, which means nothing, is not kept here."""
    line = f"{line},xx: 1,yy: 2,zz: 3"
    fields = {key: unquote(value.rstrip()) for key, value in PAIRS.findall(line.strip())}
    assert parse(line).fields == fields


# Characters that a request accepts, and those that hurt.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
hostile = st.lists(
    st.one_of(
        st.text(characters, max_size=8),
        st.sampled_from(
            [
                *("\n", "\r\n", "\r", " ", ",", ":", '"', "\\", "\t", "\u2028", "\x85", "😀", "猫と犬", "(a:1.2)"),
                *("Negative prompt:", "\nNegative prompt: ", "Steps: 3,", "\nSteps: 3, Sampler: Euler, Seed: 5"),
                *('Prompt verbatim: "x"', '\nA1: "1", B2: "2", Prompt verbatim: "x"', "Version: 1.5.0", "<lora:x:1>"),
            ]
        ),
    ),
    max_size=20,
).map("".join)
prompts = st.one_of(hostile, st.just("猫," * 5000), st.just('"' * 10_000), st.just("\\" * 9_999 + '"'))
fractions = st.floats(0, 1, allow_subnormal=False)
starts = st.none() | st.builds(
    StartImage,
    image=st.just(DIGEST),
    denoising_strength=fractions,
    mask=st.none()
    | st.builds(
        Mask,
        image=st.just(DIGEST),
        blur=st.integers(0, 64),
        mode=st.sampled_from(MaskMode),
        content=st.sampled_from(MaskedContent),
        area=st.sampled_from(InpaintArea),
        padding=st.integers(0, 256),
    ),
)
sides = st.integers(8, 512).map(lambda eighths: eighths * 8)
names = st.text(characters, min_size=1, max_size=20)
requests = st.builds(
    GenerationRequest,
    prompt=prompts,
    negative_prompt=prompts,
    size=st.builds(Size, width=sides, height=sides),
    sampling=st.builds(
        Sampling,
        sampler=names,
        schedule=names,
        steps=st.integers(1, 1000),
        cfg_scale=st.floats(0, 100),
        eta=st.none() | fractions,
    ),
    seed=st.integers(0, 2**53 - 1),
    clip_skip=st.integers(1, 12),
    start=starts,
)


@given(requests, st.sampled_from([None, 0.0, 1.0]), st.dictionaries(names, st.text(characters), max_size=3))
def test_read_gives_back_what_was_written(
    request: GenerationRequest, default_eta: float | None, extra: dict[str, str]
) -> None:
    assert request.seed is not None
    known = InfotextFacts(
        model_name="folder/star [x], :y",
        model_hash=HASH,
        seed=request.seed,
        walk=Walk(label=request.sampling.schedule, default_eta=default_eta),
        extra=extra,
    )
    parsed = parse(write(request, known))
    for read, asked_for in ((parsed.prompt, request.prompt), (parsed.negative_prompt, request.negative_prompt)):
        assert trimmed(read) == trimmed(asked_for)


@given(st.text(characters))
def test_unquote_undoes_quote(value: str) -> None:
    assert unquote(quote(value)) == value
    written = parse(f"p\nAa: 1, Bb: 2, Cc: {quote(value)}, Dd: 3")
    assert written.fields == {"Aa": "1", "Bb": "2", "Cc": value, "Dd": "3"}


@given(names, st.text(characters))
def test_pairs_of_extensions_cannot_break_the_text(key: str, value: str) -> None:
    text = write(asked(), facts(extra={key: value}))
    back = parse(text)
    plain = parse(write(asked(), facts()))
    assert (back.prompt, back.negative_prompt) == (plain.prompt, plain.negative_prompt)
    assert {**back.fields, **plain.fields} == back.fields
    assert value in back.fields.values() or back.fields == plain.fields  # a key of ours cannot be overwritten


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    back = to_request(parse(text), GenerationRequest())
    assert isinstance(back.request, GenerationRequest)


@pytest.mark.parametrize(
    "line",
    ["a" * 100_000, "a b " * 25_000, 'ab:"x,' * 20_000, 'ab:"\\",' * 20_000, "ab:" + " " * 99_999, '"' * 100_000],
)
def test_hostile_lines_end(line: str) -> None:
    """Quadratic work on these would take minutes."""
    parse(f"{line}\n{line}")
