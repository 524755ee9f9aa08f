"""The page, the API and the command line build the very same request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_model import mask_bytes, picture_bytes

from webui.cli import build_request
from webui.engine.runner import Runner
from webui.request import (
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
from webui.ui.form import request_from_values, values_from_request

COMMON = {
    "prompt": 'a "red" square, (big:1.2)\nsecond line',
    "negative_prompt": "blurry",
    "size": Size(width=128, height=192),
    "sampling": Sampling(sampler="Euler a", schedule="Karras", steps=17, cfg_scale=5.5, eta=0.25),
    "seed": 1234,
    "batch_size": 2,
    "batch_count": 3,
    "clip_skip": 2,
    "checkpoint": "tiny",
}
ARGUMENTS = [
    "--prompt", 'a "red" square, (big:1.2)\nsecond line', "--negative", "blurry", "--width", "128", "--height", "192",
    "--sampler", "Euler a", "--schedule", "Karras", "--steps", "17", "--cfg-scale", "5.5", "--eta", "0.25",
    "--seed", "1234", "--batch-size", "2", "--batch-count", "3", "--clip-skip", "2", "--checkpoint", "tiny",
]  # fmt: skip
START_ARGUMENTS = ["--denoise", "0.6", "--resize-mode", "Crop and resize"]
MASK_ARGUMENTS = [
    "--mask-blur", "7", "--mask-mode", "Inpaint not masked", "--masked-content", "latent noise",
    "--inpaint-area", "Only masked", "--padding", "16",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["txt2img", "img2img", "inpaint"])
def test_page_api_and_command_line_mean_the_same(runner: Runner, tmp_path: Path, kind: str) -> None:
    (tmp_path / "image.png").write_bytes(picture_bytes())
    (tmp_path / "mask.png").write_bytes(mask_bytes())
    image, mask = runner.inputs.put(picture_bytes()), runner.inputs.put(mask_bytes())
    wanted: dict[str, Any] = dict(COMMON)
    arguments = list(ARGUMENTS)
    if kind != "txt2img":
        arguments += ["--init-image", str(tmp_path / "image.png"), *START_ARGUMENTS]
        wanted["start"] = StartImage(image=image, denoising_strength=0.6, resize_mode=ResizeMode.CROP)
    if kind == "inpaint":
        arguments += ["--mask", str(tmp_path / "mask.png"), *MASK_ARGUMENTS]
        wanted["start"] = StartImage(
            image=image,
            denoising_strength=0.6,
            resize_mode=ResizeMode.CROP,
            mask=Mask(
                image=mask,
                blur=7,
                mode=MaskMode.NOT_MASKED,
                content=MaskedContent.LATENT_NOISE,
                area=InpaintArea.ONLY_MASKED,
                padding=16,
            ),
        )
    expected = GenerationRequest(**wanted)
    by_api = GenerationRequest.from_dict(json.loads(json.dumps(expected.to_dict())))
    by_page = request_from_values(values_from_request(expected.to_dict()))
    by_command = build_request(arguments, runner)
    assert by_api == by_page == by_command == expected


def test_what_is_left_out_means_the_same_everywhere(runner: Runner) -> None:
    """The page and the command line fill in the model's own advice; after that nothing differs."""
    from webui.engine.catalogue import CheckpointEntry
    from webui.ui.form import DEFAULTS, FIELDS, recommendation

    entry = CheckpointEntry(runner.library.find(None), runner.plugins)
    fresh = {name: DEFAULTS[name] for name in FIELDS} | recommendation(entry.native_size, entry.defaults)
    by_page = request_from_values({**fresh, "prompt": "x"})
    by_command = build_request(["--prompt", "x"], runner)
    assert by_page == by_command
    assert by_page.sampling.steps == 4 and by_page.size == Size(width=64, height=64), "the tiny model's advice"
