"""Our texts against those of the golden pictures: the same request gives the same pairs, the version aside.

The golden folder stands beside the checkout (``../shared/golden``); without it there is nothing to compare.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from webui.engine.resolve import uncommented, walks
from webui.metadata.files import read_picture_texts
from webui.metadata.infotext import EMBEDDING_HASHES, LORA_HASHES, parse
from webui.metadata.reading import to_request
from webui.metadata.writing import InfotextFacts, write
from webui.plugins.manager import Plugins
from webui.request import (
    Emphasis,
    GenerationRequest,
    InpaintArea,
    Mask,
    MaskedContent,
    MaskMode,
    Noise,
    RandomSource,
    ResizeMode,
    SamplerOptions,
    Sampling,
    SecondPass,
    Size,
    StartImage,
    TokenMerging,
)

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "a1111"
DIGEST = "0" * 64
SKIPPED = frozenset({"styles_two"})
"""Cases whose texts depend on a file that is not in the request."""


def cases() -> list[str]:
    found = [path.parent.name for path in sorted(GOLDEN.glob("*/image-0.png"))]
    return [case for case in found if case not in SKIPPED] or ["none"]


def asked(data: dict[str, Any], plugins: Plugins) -> GenerationRequest:
    """The request that a golden API call means, resolved as far as its text needs it."""
    if "infotext" in data:
        told = to_request(parse(data["infotext"]), GenerationRequest()).request
        sampling = replace(told.sampling, steps=data.get("steps", told.sampling.steps))
        told = replace(told, sampling=sampling, seed=data.get("seed", told.seed), prompt=told.prompt)
        return with_schedule(told, plugins)
    options = data.get("override_settings", {})
    request = GenerationRequest(
        prompt=data["prompt"],
        negative_prompt=data["negative_prompt"],
        size=Size(width=data["width"], height=data["height"]),
        sampling=Sampling(
            sampler=data["sampler_name"],
            schedule=data["scheduler"],
            steps=data["steps"],
            cfg_scale=data["cfg_scale"],
            eta=data.get("eta"),
            options=SamplerOptions(
                discard_penultimate=options.get("always_discard_next_to_last_sigma", False),
                zero_terminal_snr=options.get("sd_noise_schedule") == "Zero Terminal SNR",
            ),
        ),
        seed=data["seed"],
        noise=Noise(
            source=RandomSource(options.get("randn_source", "GPU")),
            variation_seed=data.get("subseed"),
            variation_strength=data.get("subseed_strength", 0.0),
            from_width=data.get("seed_resize_from_w", 0),
            from_height=data.get("seed_resize_from_h", 0),
        ),
        clip_skip=options.get("CLIP_stop_at_last_layers", 1),
        emphasis=Emphasis(options.get("emphasis", "Original")),
        tiling=data.get("tiling", False),
        token_merging=TokenMerging(ratio=options.get("token_merging_ratio", 0.0)),
        second_pass=second_pass(data) if data.get("enable_hr") else None,
        start=start(data) if "init_images" in data else None,
    )
    return with_schedule(request, plugins)


def second_pass(data: dict[str, Any]) -> SecondPass:
    return SecondPass(
        upscaler=data["hr_upscaler"],
        scale=data["hr_scale"],
        steps=data["hr_second_pass_steps"],
        denoising_strength=data["denoising_strength"],
        prompt=data.get("hr_prompt", ""),
        negative_prompt=data.get("hr_negative_prompt", ""),
    )


def start(data: dict[str, Any]) -> StartImage:
    mask = Mask(
        image=DIGEST,
        blur=data.get("mask_blur", 4),
        mode=[*MaskMode][data.get("inpainting_mask_invert", 0)],
        content=[*MaskedContent][data.get("inpainting_fill", 0)],
        area=InpaintArea.ONLY_MASKED if data.get("inpaint_full_res", True) else InpaintArea.WHOLE,
        padding=data.get("inpaint_full_res_padding", 0),
    )
    return StartImage(
        image=DIGEST,
        denoising_strength=data["denoising_strength"],
        resize_mode=[*ResizeMode][data.get("resize_mode", 0)],
        color_correction=data.get("override_settings", {}).get("img2img_color_correction", False),
        mask=mask if "mask" in data else None,
    )


def with_schedule(request: GenerationRequest, plugins: Plugins) -> GenerationRequest:
    sampler = plugins.samplers[request.sampling.sampler]
    schedule = request.sampling.schedule
    if schedule == "Automatic":
        schedule = sampler.default_schedule or "Uniform"
    eta = sampler.default_eta if request.sampling.eta is None else request.sampling.eta
    return replace(request, sampling=replace(request.sampling, schedule=schedule, eta=eta))


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.load(None)


@pytest.mark.parametrize("case", cases())
def test_the_same_request_gives_the_same_pairs(case: str, plugins: Plugins) -> None:
    if case == "none":
        pytest.skip("the golden pictures are not beside the checkout")
    data = json.loads((GOLDEN / case / "request.json").read_text())["json"]
    request = asked(data, plugins)
    for index, path in enumerate(sorted((GOLDEN / case).glob("image-*.png"))):
        text = read_picture_texts(path.read_bytes())["parameters"]
        golden = parse(text)
        walk, second_walk = walks(request, plugins)
        facts = InfotextFacts(
            model_name="oracle-sd15",
            model_hash="45154eb536" + "0" * 54,
            seed=request.seed_of(index),
            variation_seed=request.variation_seed_of(index),
            walk=walk,
            second_walk=second_walk,
            lora_hashes=named(golden.fields.get(LORA_HASHES, "")),  # of files, which are not here
            embedding_hashes=named(golden.fields.get(EMBEDDING_HASHES, "")),
        )
        ours = write(uncommented(request), facts)
        assert ours.rpartition(", Version: ")[0] == text.rpartition(", Version: ")[0]


def named(text: str) -> dict[str, str]:
    return dict(part.split(": ") for part in text.split(", ")) if text else {}
