"""Second pass, refiner, VAE and noise options through the runner: what they change, what is recorded, made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_model import picture_bytes, tiny_request, tiny_weights, write_checkpoint

from webui.checkpoints import keys
from webui.engine.executor import Control, Report
from webui.engine.runner import Runner
from webui.errors import NotFoundError
from webui.images.pixels import read_pixels
from webui.metadata.files import read_picture_texts
from webui.metadata.verdict import Outcome
from webui.networks.restoration import spandrel
from webui.request import (
    FaceRestoration,
    GenerationRequest,
    Noise,
    RandomSource,
    Refiner,
    RefinerPasses,
    SamplerOptions,
    SecondPass,
    StartImage,
)
from webui.result import Pixels

SECOND = SecondPass(scale=1.5, steps=2, denoising_strength=0.6)


def files(runner: Runner, request: GenerationRequest, reports: list[Report] | None = None) -> list[bytes]:
    tell = reports.append if reports is not None else lambda report: None
    return [path.read_bytes() for path in runner.generate(request, tell, Control())]


def picture(runner: Runner, request: GenerationRequest) -> Pixels:
    return read_pixels(files(runner, request)[0])


def write_esrgan(path: Path) -> None:
    """An upscaler of random weights."""
    spandrel()
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.manual_seed(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(ESRGAN(num_filters=8, num_blocks=1, scale=2).state_dict(), path)


def same(one: Pixels, two: Pixels) -> bool:
    return one.shape == two.shape and bool((one == two).all())


def again(runner: Runner, data: bytes) -> Outcome:
    return runner.reproduce(data, lambda report: None, Control()).outcome


@pytest.fixture
def other(runner: Runner) -> str:
    """A second checkpoint."""
    path = runner.library.default_checkpoint().path.with_name("other.safetensors")
    write_checkpoint(path, tiny_weights(seed=5))
    runner.library.refresh()
    return "other"


@pytest.fixture
def vae(runner: Runner) -> str:
    """A VAE in a file of its own."""
    weights = {
        name.removeprefix(keys.VAE_PREFIX): tensor
        for name, tensor in tiny_weights(seed=9).items()
        if name.startswith(keys.VAE_PREFIX)
    }
    write_checkpoint(runner.settings.models_dir / "VAE" / "lense.safetensors", weights)
    runner.library.refresh()
    return "lense"


@pytest.mark.parametrize("upscaler", ["Latent", "Latent (bicubic antialiased)", "Lanczos", "None"])
def test_a_second_pass_makes_a_larger_picture_that_is_made_again_to_the_bit(runner: Runner, upscaler: str) -> None:
    request = tiny_request(second_pass=replace(SECOND, upscaler=upscaler))
    reports: list[Report] = []
    data = files(runner, request, reports)[0]
    assert read_pixels(data).shape == (96, 96, 3)
    assert again(runner, data) is Outcome.BIT_EXACT
    steps = [(report.data["step"], report.data["steps"]) for report in reports if report.kind == "progress"]
    assert (5, 5) in steps, "three steps and two, told as one walk"


def test_both_sides_given_cut_the_picture(runner: Runner) -> None:
    request = tiny_request(second_pass=SecondPass(width=128, height=64, steps=1))
    assert picture(runner, request).shape == (64, 128, 3)


def test_everything_of_the_second_pass_changes_the_picture(runner: Runner, other: str) -> None:
    plain = tiny_request(prompt="a cat", checkpoint="tiny", second_pass=SECOND)
    changes = [
        {},
        {"denoising_strength": 0.9},
        {"steps": 3},
        {"cfg_scale": 1.0},
        {"sampler": "Heun"},
        {"schedule": "Karras"},
        {"prompt": "a dog"},
        {"negative_prompt": "fog"},
        {"checkpoint": other},
        {"upscaler": "Latent (nearest-exact)"},
    ]
    pictures = [picture(runner, replace(plain, second_pass=replace(SECOND, **change))) for change in changes]
    assert len({made.tobytes() for made in pictures}) == len(changes)


def test_a_second_pass_in_a_batch_is_the_one_alone(runner: Runner) -> None:
    request = tiny_request(second_pass=SECOND, batch_size=2)
    together = [read_pixels(data) for data in files(runner, request)]
    alone = picture(runner, replace(request, seed=(request.seed or 0) + 1, batch_size=1))
    assert np.abs(together[1].astype(int) - alone.astype(int)).max() <= 1


def test_a_stochastic_second_sampler_takes_its_own_eta(runner: Runner) -> None:
    request = tiny_request(sampler="Euler", second_pass=replace(SECOND, sampler="Euler a", steps=3))
    recipe = json.loads(read_picture_texts(files(runner, request)[0])["recipe"])["request"]
    assert (recipe["sampling"]["eta"], recipe["second_pass"]["eta"]) == (0.0, 1.0)


@pytest.mark.parametrize("by_steps", [False, True])
def test_a_refiner_takes_over(runner: Runner, other: str, by_steps: bool) -> None:
    plain = tiny_request(prompt="a cat", checkpoint="tiny")
    alone = picture(runner, plain)
    refiner = Refiner(checkpoint=other, switch_at=0.5, by_steps=by_steps)
    data = files(runner, replace(plain, refiner=refiner))[0]
    refined = read_pixels(data)
    at_once = picture(runner, replace(plain, refiner=replace(refiner, switch_at=0.0)))
    assert not same(refined, alone) and not same(refined, at_once)
    assert same(at_once, picture(runner, replace(plain, checkpoint=other)))
    assert again(runner, data) is Outcome.BIT_EXACT
    roles = {model["role"]: model["name"] for model in json.loads(read_picture_texts(data)["recipe"])["models"]}
    assert roles == {"checkpoint": "tiny", "refiner": "other"}


def test_a_refiner_works_in_the_passes_it_is_wanted_in(runner: Runner, other: str) -> None:
    plain = tiny_request(prompt="a cat", checkpoint="tiny", second_pass=SECOND)
    refiner = Refiner(checkpoint=other, switch_at=0.0)
    made = {
        passes: picture(runner, replace(plain, refiner=replace(refiner, passes=passes))) for passes in RefinerPasses
    }
    assert len({pixels.tobytes() for pixels in (*made.values(), picture(runner, plain))}) == 4
    both = replace(plain, checkpoint=other)
    assert same(made[RefinerPasses.BOTH], picture(runner, both))


def test_a_vae_of_its_own_decodes_and_is_recorded(runner: Runner, vae: str) -> None:
    plain = tiny_request()
    own = picture(runner, plain)
    data = files(runner, replace(plain, vae=vae))[0]
    assert not same(read_pixels(data), own)
    recipe = json.loads(read_picture_texts(data)["recipe"])
    assert recipe["request"]["vae"] == "lense" and [model["role"] for model in recipe["models"]] == [
        "checkpoint",
        "vae",
    ]
    assert again(runner, data) is Outcome.BIT_EXACT
    assert same(picture(runner, replace(plain, vae="None")), own)


OPTIONS: dict[str, Callable[[GenerationRequest], GenerationRequest]] = {
    "RNG NV": lambda r: replace(r, noise=Noise(source=RandomSource.NV)),
    "variation": lambda r: replace(r, noise=Noise(variation_seed=5, variation_strength=0.4)),
    "resized seed": lambda r: replace(r, noise=Noise(from_width=128, from_height=64)),
    "ENSD": lambda r: replace(r, noise=Noise(later_offset=31337)),
    "s_churn": lambda r: with_options(r, s_churn=10.0),
    "sigma_max": lambda r: with_options(r, sigma_max=8.0),
    "discarded": lambda r: with_options(r, discard_penultimate=True),
    "full noise": lambda r: with_options(r, full_noise=True),
    "zero terminal SNR": lambda r: with_options(r, zero_terminal_snr=True),
    "comma": lambda r: replace(r, prompt=LONG, comma_backtrack=0),
}
LONG = ", ".join(["one two three four five six seven"] * 14)


def with_options(request: GenerationRequest, **options: object) -> GenerationRequest:
    return replace(request, sampling=replace(request.sampling, options=SamplerOptions(**options)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_changes_the_picture_and_is_made_again(runner: Runner, name: str) -> None:
    sampler = "Euler" if name == "s_churn" else "Euler a"
    plain = tiny_request(prompt=LONG if name == "comma" else "a cat", sampler=sampler, schedule="Karras")
    data = files(runner, OPTIONS[name](plain))[0]
    assert not same(read_pixels(data), picture(runner, plain))
    assert again(runner, data) is Outcome.BIT_EXACT


def test_pictures_of_a_variation_are_made_alone_alike(runner: Runner) -> None:
    request = tiny_request(noise=Noise(variation_seed=5, variation_strength=0.4), batch_count=2)
    second = files(runner, request)[1]
    alone = picture(runner, replace(request, noise=replace(request.noise, variation_seed=6), batch_count=1))
    assert same(read_pixels(second), alone)


def test_two_checkpoints_of_a_job_stay_loaded(runner: Runner, other: str) -> None:
    request = tiny_request(checkpoint="tiny", refiner=Refiner(checkpoint=other, switch_at=0.5))
    files(runner, request)
    assert len(runner.models._checkpoints) == 2
    before = {id(model.unet) for model in runner.models._checkpoints.values()}
    files(runner, request)
    assert {id(model.unet) for model in runner.models._checkpoints.values()} == before


def test_the_start_image_is_enlarged_by_its_upscaler(runner: Runner) -> None:
    start = StartImage(image=runner.inputs.put(picture_bytes(32, 32)), denoising_strength=0.3)
    request = tiny_request(start=start)
    nearest = files(runner, replace(request, start=replace(start, upscaler="Nearest")))[0]
    assert not same(read_pixels(nearest), picture(runner, request))
    assert again(runner, nearest) is Outcome.BIT_EXACT


def test_an_upscaler_file_is_recorded_and_found_by_its_bytes(runner: Runner) -> None:
    path = runner.settings.models_dir / "ESRGAN" / "2x_tiny.safetensors"
    write_esrgan(path)
    runner.library.refresh()
    data = files(runner, tiny_request(second_pass=replace(SECOND, upscaler="2x_tiny")))[0]
    recipe = json.loads(read_picture_texts(data)["recipe"])
    assert [model["role"] for model in recipe["models"]] == ["checkpoint", "upscaler"]
    assert again(runner, data) is Outcome.BIT_EXACT
    path.rename(path.with_name("4x_renamed.safetensors"))
    assert again(runner, data) is Outcome.BIT_EXACT
    path.with_name("4x_renamed.safetensors").unlink()
    verdict = runner.reproduce(data, lambda report: None, Control())
    assert verdict.outcome is Outcome.CANNOT_RUN and "2x_tiny" in verdict.reasons[0]


def test_faces_are_mended_before_the_picture_is_saved(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    from webui.faces import FaceRestorer

    mended = FaceRestorer(name="Dimmer", restore=lambda pixels, work: pixels // 2)
    monkeypatch.setitem(runner.plugins.face_restorers, "Dimmer", mended)
    plain = picture(runner, tiny_request())
    request = tiny_request(face_restoration=FaceRestoration(model="dimmer"))
    data = files(runner, request)[0]
    assert same(read_pixels(data), plain // 2)
    assert again(runner, data) is Outcome.BIT_EXACT


def test_a_restorer_without_its_file_says_which(runner: Runner) -> None:
    with pytest.raises(NotFoundError, match="GFPGANv1"):
        files(runner, tiny_request(face_restoration=FaceRestoration(model="GFPGAN")))
