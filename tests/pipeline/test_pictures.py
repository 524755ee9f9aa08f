"""What a request makes, whatever network makes it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_model import mask_bytes, picture_bytes, tiny_request

from webui import families
from webui.checkpoints.formats import BUILT_IN
from webui.device import choose
from webui.diffusion.schedules import resolve_schedule
from webui.families.sd15 import StableDiffusion1
from webui.images import masks
from webui.images.pixels import read_pixels
from webui.images.resize import resize
from webui.model import Model
from webui.pipeline.denoising import Setup, prepare
from webui.pipeline.img2img import StartPictures, begin
from webui.pipeline.moments import Decoding, Made, Moment, Stepped
from webui.pipeline.run import run_group
from webui.plugins.manager import Plugins
from webui.request import (
    GenerationRequest,
    InpaintArea,
    Mask,
    MaskedContent,
    MaskMode,
    ResizeMode,
    Size,
    SoftInpainting,
    StartImage,
)
from webui.result import Pixels

PLUGINS = Plugins.load(None)
DIGEST = "0" * 64
PICTURE = picture_bytes(64, 64)
WIDE = picture_bytes(100, 52, seed=1)
START = StartImage(image=DIGEST, denoising_strength=0.7)
INPAINT = replace(START, mask=Mask(image=DIGEST, blur=2))


@pytest.fixture(scope="module")
def models(tiny_checkpoint: Path) -> Callable[[str], Model]:
    loaded: dict[str, Model] = {}

    def model(precision: str) -> Model:
        if precision not in loaded:
            compute = choose("cpu", precision, 1)
            file = BUILT_IN.open(tiny_checkpoint)
            loaded[precision] = families.load(file, {"SD1": StableDiffusion1()}, compute)
        return loaded[precision]

    return model


@pytest.fixture(scope="module")
def model(models: Callable[[str], Model]) -> Model:
    return models("fp32")


def setup_for(request: GenerationRequest, model: Model) -> tuple[GenerationRequest, Setup]:
    sampler = PLUGINS.samplers[request.sampling.sampler]
    schedule = resolve_schedule(sampler, request.sampling.schedule, PLUGINS.schedules.values())
    request = request.resolved(
        checkpoint="tiny", vae="None", sampler=sampler.name, schedule=schedule.name, eta=sampler.default_eta or 0.0
    )
    return request, prepare(request, model, sampler, schedule)


def moments(
    request: GenerationRequest,
    model: Model,
    indices: tuple[int, ...],
    picture: bytes = PICTURE,
    mask: bytes | None = None,
) -> list[Moment]:
    with torch.inference_mode():
        resolved, setup = setup_for(request, model)
        start = None
        if request.start is not None:
            pictures = StartPictures(read_pixels(picture), mask if request.start.mask else None)
            start = begin(resolved, model, pictures)
        return list(run_group(resolved, setup, start, indices))


def made(*arguments: Any, **named: Any) -> list[Pixels]:
    return [moment.picture.pixels for moment in moments(*arguments, **named) if isinstance(moment, Made)]


def equal(first: Pixels, second: Pixels) -> bool:
    return first.shape == second.shape and bool((first == second).all())


KINDS = {
    "txt2img": tiny_request(),
    "img2img": tiny_request(start=START),
    "inpaint": tiny_request(start=INPAINT),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_request_gives_the_same_bits(models: Callable[[str], Model], kind: str, precision: str) -> None:
    first, second = (made(KINDS[kind], models(precision), (0,), mask=mask_bytes())[0] for _ in range(2))
    assert equal(first, second) and first.std() > 5


@pytest.mark.parametrize("sampler", PLUGINS.samplers)
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_does_not_depend_on_the_others(model: Model, kind: str, sampler: str) -> None:
    """Picture i with seed s is picture 0 with seed s + i; within a batch through the network to rounding."""
    request = replace(KINDS[kind], sampling=replace(KINDS[kind].sampling, sampler=sampler), batch_size=3)
    alone = made(replace(request, seed=9), model, (0,), mask=mask_bytes())[0]
    assert equal(made(request, model, (2,), mask=mask_bytes())[0], alone)
    together = made(request, model, (0, 1, 2), mask=mask_bytes())
    assert len(together) == 3
    assert np.abs(together[2].astype(int) - alone.astype(int)).max() <= 1


def test_other_seeds_prompts_and_scales_make_other_pictures(model: Model) -> None:
    request = tiny_request(prompt="a cat")
    changes = [{}, {"seed": 8}, {"prompt": "a dog"}, {"negative_prompt": "fur"}, {"clip_skip": 2}]
    pictures = [made(replace(request, **change), model, (0,))[0] for change in changes]
    pictures.append(made(tiny_request(prompt="a cat", cfg_scale=2.0), model, (0,))[0])
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_steps_are_told_in_order_before_the_picture(model: Model) -> None:
    told = moments(tiny_request(steps=4), model, (0,))
    assert [(m.step, m.steps, m.indices) for m in told if isinstance(m, Stepped)] == [(n, 4, (0,)) for n in range(1, 5)]
    assert [type(m) for m in told[-2:]] == [Decoding, Made]
    assert all(m.denoised.shape == (1, 4, 8, 8) for m in told if isinstance(m, Stepped))


def test_stopping_between_two_steps_computes_no_further(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    real = model.unet.forward

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*arguments)

    monkeypatch.setattr(model.unet, "forward", counted)
    with torch.inference_mode():
        request, setup = setup_for(tiny_request(steps=10), model)
        running = run_group(request, setup, None, (0,))
        for _ in range(3):
            next(running)
        running.close()
    assert calls == 3


@pytest.mark.parametrize("size", [(64, 64), (72, 64), (64, 136), (128, 72)])
def test_sizes_are_those_asked_for(model: Model, size: tuple[int, int]) -> None:
    for start in (None, START):
        request = tiny_request(size=Size(width=size[0], height=size[1]), steps=2, start=start)
        assert made(request, model, (0,))[0].shape == (size[1], size[0], 3)


@pytest.mark.parametrize("mode", ResizeMode)
def test_every_resize_mode_gives_the_size_asked_for(model: Model, mode: ResizeMode) -> None:
    start = replace(START, resize_mode=mode)
    request = tiny_request(size=Size(width=64, height=72), start=start)
    assert made(request, model, (0,), WIDE)[0].shape == (72, 64, 3)
    inpainting = tiny_request(size=Size(width=64, height=72), start=replace(INPAINT, resize_mode=mode))
    assert made(inpainting, model, (0,), WIDE, mask_bytes(100, 52))[0].shape == (72, 64, 3)


def test_resize_modes_are_resizes_of_the_start_image(model: Model) -> None:
    """img2img of a picture that is not of the size asked for is img2img of the resized picture."""
    for mode in (ResizeMode.JUST_RESIZE, ResizeMode.CROP, ResizeMode.FILL):
        stream = io.BytesIO()
        Image.fromarray(resize(read_pixels(WIDE), 64, 64, mode)).save(stream, "PNG")
        direct = made(tiny_request(start=replace(START, resize_mode=mode)), model, (0,), WIDE)[0]
        assert equal(direct, made(tiny_request(start=START), model, (0,), stream.getvalue())[0])


@pytest.mark.parametrize("size", [(9, 9), (1, 1), (8, 300)])
def test_small_and_odd_start_images_work(model: Model, size: tuple[int, int]) -> None:
    for mode in ResizeMode:
        request = tiny_request(start=replace(START, resize_mode=mode), steps=2)
        assert made(request, model, (0,), picture_bytes(*size))[0].shape == (64, 64, 3)


def test_strength_says_how_much_of_the_picture_is_left(model: Model) -> None:
    start = read_pixels(PICTURE)
    through = made(tiny_request(start=replace(START, denoising_strength=0.0), steps=20), model, (0,))[0]
    distances = []
    for strength in (0.1, 0.5, 1.0):
        picture = made(tiny_request(start=replace(START, denoising_strength=strength), steps=20), model, (0,))[0]
        distances.append(np.abs(picture.astype(int) - through.astype(int)).mean())
    assert distances == sorted(distances) and distances[0] < distances[2]
    assert through.shape == start.shape


MASKS = [
    Mask(image=DIGEST, blur=blur, mode=mode, content=content, area=area, padding=8)
    for content in MaskedContent
    for area in InpaintArea
    for blur, mode in ((0, MaskMode.MASKED), (4, MaskMode.NOT_MASKED))
]


@pytest.mark.parametrize("mask", MASKS, ids=lambda m: f"{m.content}-{m.area}-{m.blur}")
@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_outside_the_mask_every_byte_is_the_original(model: Model, mask: Mask, sampler: str) -> None:
    request = tiny_request(start=replace(START, mask=mask), sampler=sampler)
    drawn = mask_bytes(box=(10, 8, 54, 56))
    picture = made(request, model, (0,), mask=drawn)[0]
    levels = masks.read_mask(drawn)
    if mask.mode is MaskMode.NOT_MASKED:
        levels = masks.invert(levels)
    outside = masks.blur(levels, mask.blur) == 0
    original = read_pixels(PICTURE)
    assert outside.sum() > 600
    assert (picture[outside] == original[outside]).all()
    assert (picture[levels == 255] != original[levels == 255]).mean() > 0.5


@pytest.mark.parametrize("content", MaskedContent)
@pytest.mark.parametrize("area", InpaintArea)
def test_an_empty_mask_changes_nothing(model: Model, area: InpaintArea, content: MaskedContent) -> None:
    request = tiny_request(start=replace(START, mask=Mask(image=DIGEST, area=area, content=content)), batch_size=2)
    pictures = made(request, model, (0, 1), mask=mask_bytes(box=None))
    assert len(pictures) == 2 and all(equal(picture, read_pixels(PICTURE)) for picture in pictures)


def test_an_empty_mask_over_a_picture_of_another_size_changes_nothing(model: Model) -> None:
    """Only masked keeps the picture's own size, as it does with a mask."""
    mask = Mask(image=DIGEST, area=InpaintArea.ONLY_MASKED)
    picture = made(tiny_request(start=replace(START, mask=mask)), model, (0,), WIDE, mask_bytes(100, 52, None))[0]
    assert equal(picture, read_pixels(WIDE))


def test_only_masked_keeps_the_pictures_own_size(model: Model) -> None:
    mask = Mask(image=DIGEST, area=InpaintArea.ONLY_MASKED, blur=0, padding=4)
    drawn = mask_bytes(100, 52, (60, 10, 80, 30))
    picture = made(tiny_request(start=replace(START, mask=mask)), model, (0,), WIDE, drawn)[0]
    original, outside = read_pixels(WIDE), masks.read_mask(drawn) == 0
    assert picture.shape == original.shape and (picture[outside] == original[outside]).all()


def test_a_full_mask_paints_everything_anew(model: Model) -> None:
    everything = mask_bytes(box=(0, 0, 64, 64))
    for content in MaskedContent:
        mask = Mask(image=DIGEST, blur=0, content=content)
        picture = made(tiny_request(start=replace(START, mask=mask)), model, (0,), mask=everything)[0]
        assert (picture != read_pixels(PICTURE)).any(axis=2).mean() > 0.9


def test_a_full_mask_over_the_original_is_img2img(model: Model) -> None:
    mask = Mask(image=DIGEST, blur=0)
    painted = made(tiny_request(start=replace(START, mask=mask)), model, (0,), mask=mask_bytes(box=(0, 0, 64, 64)))[0]
    assert equal(painted, made(tiny_request(start=START), model, (0,))[0])


GRADIENT = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))


def grey_mask() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(GRADIENT).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
@pytest.mark.parametrize("area", InpaintArea)
def test_a_soft_mask_paints_the_more_the_lighter_it_is(model: Model, sampler: str, area: InpaintArea) -> None:
    mask = Mask(image=DIGEST, blur=0, area=area, soft=SoftInpainting())
    picture = made(tiny_request(start=replace(START, mask=mask), sampler=sampler), model, (0,), mask=grey_mask())[0]
    moved = np.abs(picture.astype(int) - read_pixels(PICTURE)).mean(axis=(0, 2))
    assert picture.shape == (64, 64, 3)
    assert moved[:8].mean() < moved[-8:].mean()
    hard = made(
        tiny_request(start=replace(START, mask=replace(mask, soft=None)), sampler=sampler),
        model,
        (0,),
        mask=grey_mask(),
    )[0]
    assert not equal(picture, hard)


def test_a_soft_batch_is_its_pictures_one_by_one(model: Model) -> None:
    mask = Mask(image=DIGEST, soft=SoftInpainting())
    request = tiny_request(start=replace(START, mask=mask), batch_size=2)
    together = made(request, model, (0, 1), mask=grey_mask())
    assert all(
        np.abs(one.astype(int) - made(request, model, (i,), mask=grey_mask())[0]).max() <= 1
        for i, one in enumerate(together)
    )


def test_without_rounding_the_latents_mask_keeps_its_greys(model: Model) -> None:
    def picture(rounded: bool) -> Pixels:
        mask = Mask(image=DIGEST, blur=0, round=rounded)
        return made(tiny_request(start=replace(START, mask=mask)), model, (0,), mask=grey_mask())[0]

    assert not equal(picture(True), picture(False))


def test_without_an_overlay_the_networks_own_pixels_stay(model: Model) -> None:
    drawn = mask_bytes(100, 52, (60, 10, 80, 30))
    for area, shape in ((InpaintArea.WHOLE, (64, 64, 3)), (InpaintArea.ONLY_MASKED, (64, 64, 3))):
        mask = Mask(image=DIGEST, area=area, overlay=False)
        picture = made(tiny_request(start=replace(START, mask=mask)), model, (0,), WIDE, drawn)[0]
        assert picture.shape == shape
        assert not equal(picture, resize(read_pixels(WIDE), 64, 64))


def test_corrected_colours_are_those_of_the_start(model: Model) -> None:
    def spread(correction: bool, **changes: Any) -> float:
        start = replace(START, color_correction=correction, **changes)
        picture = made(tiny_request(start=start), model, (0,), mask=mask_bytes(box=(0, 0, 64, 64)))[0]
        levels = [
            np.sort(found[..., channel], axis=None) for found in (picture, read_pixels(PICTURE)) for channel in (0, 2)
        ]
        return float(
            np.abs(levels[0].astype(int) - levels[2]).mean() + np.abs(levels[1].astype(int) - levels[3]).mean()
        )

    assert spread(True) < spread(False)
    full = Mask(image=DIGEST, blur=0)
    assert spread(True, mask=full) < spread(False, mask=full)


def test_a_long_prompt_beside_a_short_one_works(model: Model) -> None:
    picture = made(tiny_request(prompt="word " * 200, negative_prompt="x"), model, (0,))[0]
    assert picture.shape == (64, 64, 3)
