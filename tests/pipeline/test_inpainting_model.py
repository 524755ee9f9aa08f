"""A checkpoint for inpainting: nine channels, of which five tell it where to paint and what stands around."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import mask_bytes, picture_bytes, tiny_request, tiny_weights, write_checkpoint

from webui import families
from webui.checkpoints import keys
from webui.checkpoints.formats import BUILT_IN
from webui.device import choose
from webui.diffusion.schedules import resolve_schedule
from webui.errors import CheckpointError
from webui.families.sd15 import StableDiffusion1
from webui.images import masks
from webui.images.pixels import read_pixels
from webui.latents import codec
from webui.model import Model
from webui.pipeline.denoising import Setup, prepare
from webui.pipeline.hires import Second, second_request
from webui.pipeline.img2img import StartPictures, begin
from webui.pipeline.inpainting_model import informed
from webui.pipeline.moments import Made
from webui.pipeline.run import run_group
from webui.plugins.manager import Plugins
from webui.request import GenerationRequest, InpaintArea, Mask, SecondPass, StartImage
from webui.result import Pixels
from webui.upscalers import find_upscaler

PLUGINS = Plugins.load(None)
START = StartImage(image="0" * 64, denoising_strength=0.7)
PICTURE = picture_bytes(64, 64)
BOX = (16, 8, 48, 56)


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def checkpoint(folder: Path, channels: int) -> Model:
    weights = tiny_weights()
    name = keys.UNET_PREFIX + "input_blocks.0.0.weight"
    first = weights[name]
    generator = torch.Generator().manual_seed(4)
    more = torch.randn(len(first), channels - 4, 3, 3, generator=generator) * 0.2
    weights[name] = torch.cat([first, more], dim=1)
    file = BUILT_IN.open(write_checkpoint(folder / "inpainting.safetensors", weights))
    return families.load(file, {"SD1": StableDiffusion1()}, choose("cpu", "fp32", 1))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return checkpoint(tmp_path_factory.mktemp("models"), 9)


def resolved(request: GenerationRequest) -> GenerationRequest:
    sampler = PLUGINS.samplers[request.sampling.sampler]
    schedule = resolve_schedule(sampler, request.sampling.schedule, PLUGINS.schedules.values())
    return request.resolved(checkpoint="a", vae="None", sampler=sampler.name, schedule=schedule.name, eta=0.0)


def set_up(request: GenerationRequest, model: Model) -> Setup:
    sampling = request.sampling
    return prepare(request, model, PLUGINS.samplers[sampling.sampler], PLUGINS.schedules[sampling.schedule])


def made(request: GenerationRequest, model: Model, mask: bytes | None = None) -> list[Pixels]:
    request = resolved(request)
    beginning = begin(request, model, StartPictures(read_pixels(PICTURE), mask)) if request.start else None
    second = None
    if request.second_pass:
        later = second_request(request)
        upscaler = find_upscaler(request.second_pass.upscaler, PLUGINS.upscalers.values())
        second = Second(request=later, setup=set_up(later, model), upscaler=upscaler)
    moments = run_group(request, set_up(request, model), beginning, list(range(request.batch_size)), second)
    return [moment.picture.pixels for moment in moments if isinstance(moment, Made)]


def test_it_is_told_the_mask_and_the_picture_around_it(model: Model) -> None:
    request, start = resolved(tiny_request()), read_pixels(PICTURE)
    mask = masks.read_mask(mask_bytes(box=BOX))
    told = informed(request, set_up(request, model), [0], start, mask).extra_channels
    assert told is not None and told.shape == (1, 5, 8, 8)
    assert torch.equal(told[0, 0] == 1, torch.from_numpy(mask[4::8, 4::8] == 255))
    grey = start.astype(np.float64)
    grey[mask == 255] = 127.5
    posterior = codec.encode(grey, model)
    generator = torch.Generator().manual_seed(request.seed_of(0))
    torch.randn(4, 8, 8, generator=generator)  # the start image's own
    expected = posterior.sample(torch.randn(1, 4, 8, 8, generator=generator)) * model.scale_factor
    torch.testing.assert_close(told[:, 1:], expected)


def test_without_a_picture_all_is_to_be_painted_and_nothing_stands_around(model: Model) -> None:
    request = resolved(tiny_request(batch_size=2))
    told = informed(request, set_up(request, model), [0, 1]).extra_channels
    assert told is not None and told.shape == (2, 5, 8, 8)
    assert (told[:, 0] == 1).all()
    mean = codec.encode(np.full((64, 64, 3), 127.5), model).mean * model.scale_factor
    assert (told[:, 1:] - mean).abs().mean() < mean.abs().mean() + 1


def test_other_models_are_told_nothing(tmp_path: Path) -> None:
    plain = checkpoint(tmp_path, 4)
    request = resolved(tiny_request())
    setup = set_up(request, plain)
    assert not plain.is_for_inpainting
    assert informed(request, setup, [0], read_pixels(PICTURE)) is setup


@pytest.mark.parametrize("area", InpaintArea)
def test_it_paints_the_mask_and_looks_at_what_stands_around(model: Model, area: InpaintArea) -> None:
    request = tiny_request(start=replace(START, mask=Mask(image="0" * 64, blur=0, area=area, padding=8)))
    drawn = mask_bytes(box=BOX)
    (picture,) = made(request, model, drawn)
    inside = masks.read_mask(drawn) == 255
    assert (picture[~inside] == read_pixels(PICTURE)[~inside]).all()
    assert (picture[inside] != read_pixels(PICTURE)[inside]).mean() > 0.5


def test_every_pipeline_takes_it_and_a_batch_is_its_pictures_one_by_one(model: Model) -> None:
    (larger,) = made(tiny_request(second_pass=SecondPass(scale=1.5, steps=2)), model)
    assert larger.shape == (96, 96, 3)
    for start in (None, START):
        request = tiny_request(start=start, batch_size=2)
        together = made(request, model)
        for index, picture in enumerate(together):
            (alone,) = made(resolved(request).alone(index), model)
            assert np.abs(picture.astype(int) - alone).max() <= 1
        assert not np.array_equal(*together)


@pytest.mark.parametrize("channels", [5, 8])
def test_a_unet_of_other_channels_is_refused(tmp_path: Path, channels: int) -> None:
    with pytest.raises(CheckpointError, match=f"reads {channels} channels; known are 4 and, for inpainting, 9"):
        checkpoint(tmp_path, channels)
