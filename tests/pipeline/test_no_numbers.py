"""Answers that are no numbers: the VAE is asked again in fp32, anything else is one clear sentence."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import tiny_request

from webui import families
from webui.checkpoints.formats import BUILT_IN
from webui.device import choose
from webui.diffusion.schedules import resolve_schedule
from webui.errors import NumbersError
from webui.families.sd15 import StableDiffusion1
from webui.latents import codec
from webui.model import Model
from webui.pipeline.denoising import prepare
from webui.pipeline.moments import Made
from webui.pipeline.txt2img import txt2img
from webui.plugins.manager import Plugins

PLUGINS = Plugins.load(None)
LATENT = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def model(tiny_checkpoint: Path) -> Model:
    return families.load(BUILT_IN.open(tiny_checkpoint), {"SD1": StableDiffusion1()}, choose("cpu", "fp32", 1))


def with_vae(model: Model, change: Callable[[torch.nn.Module], object], dtype: torch.dtype) -> Model:
    vae = copy.deepcopy(model.vae)
    change(vae)
    return replace(model, vae=vae.to(dtype), compute=replace(model.compute, vae_dtype=dtype))


def loud(vae: torch.nn.Module) -> None:
    """Values of 10^5 behind the first convolutions: too large for fp16, and the norms after them forget the scale."""
    for half, factor in ((vae.encoder, 1e5), (vae.decoder, 2e4)):
        half.conv_in.weight.data *= factor
        half.conv_in.bias.data *= factor


def broken(network: torch.nn.Module) -> None:
    next(network.parameters()).data[0] = float("nan")


def test_a_vae_that_overflows_is_asked_again_in_fp32(model: Model) -> None:
    narrow = with_vae(model, loud, torch.float16)
    assert not codec.are_numbers(narrow.vae.decode(LATENT.half()))
    found = codec.decoded(LATENT, narrow)
    assert found.again_in_fp32
    wide = codec.decoded(LATENT, with_vae(model, loud, torch.float32))
    assert not wide.again_in_fp32
    assert np.abs(found.pixels.astype(int) - wide.pixels).max() <= 3, "but for weights rounded to fp16"
    assert narrow.vae.decoder.conv_in.weight.dtype is torch.float16, "the model itself stays as it was"
    pixels = np.full((16, 16, 3), 255, np.uint8)
    assert not codec.are_numbers(narrow.vae.encode(torch.ones(1, 3, 16, 16).half()).mean)
    assert codec.are_numbers(codec.encode(pixels, narrow).mean)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_damaged_vae_is_named(model: Model, dtype: torch.dtype) -> None:
    damaged = with_vae(model, lambda vae: (broken(vae.encoder), broken(vae.decoder)), dtype)
    with pytest.raises(NumbersError, match=rf"VAE of {model.name} .* its file is damaged"):
        codec.decode(LATENT, damaged)
    with pytest.raises(NumbersError, match="start image"):
        codec.encode(np.zeros((16, 16, 3), np.uint8), damaged)


def pictures(model: Model) -> list[Made]:
    request = tiny_request()
    sampler = PLUGINS.samplers[request.sampling.sampler]
    schedule = resolve_schedule(sampler, request.sampling.schedule, PLUGINS.schedules.values())
    request = request.resolved(checkpoint="a", vae="None", sampler=sampler.name, schedule=schedule.name, eta=0.0)
    moments = txt2img(request, prepare(request, model, sampler, schedule), [0])
    return [moment for moment in moments if isinstance(moment, Made)]


def test_a_retry_is_told_in_the_pictures_text(model: Model) -> None:
    (made,) = pictures(with_vae(model, loud, torch.float16))
    assert made.picture.infotext_extra == {"VAE retry": "fp32"}
    assert pictures(model)[0].picture.infotext_extra == {}


@pytest.mark.parametrize(("precision", "advice"), [("fp32", "damaged"), ("fp16", "--precision fp32")])
def test_a_unet_without_numbers_ends_the_job_with_its_cause(model: Model, precision: str, advice: str) -> None:
    unet = copy.deepcopy(model.unet)
    broken(unet)
    dtype = {"fp32": torch.float32, "fp16": torch.float16}[precision]
    with pytest.raises(NumbersError, match=f"in step 1: .*{advice}"):
        pictures(replace(model, unet=unet, compute=replace(model.compute, dtype=dtype)))
