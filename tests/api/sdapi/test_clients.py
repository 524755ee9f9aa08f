"""Public programs that know nothing of us: the client library webuiapi, the readers sd-parsers and sd-prompt-reader.

All three unmodified from the package registry, against a server as it is started by a person.
"""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from scripts_loaded import put_scripts
from server.running import Running, start
from tiny_model import mask_bytes, picture_bytes

webuiapi = pytest.importorskip("webuiapi")
SMALL = {"prompt": "a red square", "negative_prompt": "blurry", "width": 64, "height": 64, "steps": 2, "seed": 5}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("clients")
    models = folder / "models" / "Stable-diffusion"
    models.mkdir(parents=True)
    shutil.copy(tiny_checkpoint, models)
    put_scripts(folder / "extensions")
    running = start(folder, folder / "models", "--password", "open sesame")
    yield running
    running.stop()


@pytest.fixture
def api(server: Running, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    port = int(server.address.rpartition(":")[2])
    return webuiapi.WebUIApi(port=port, sampler="Euler a", steps=2, username="anybody", password="open sesame")


def picture() -> Image.Image:
    return Image.open(io.BytesIO(picture_bytes()))


def test_without_the_password_there_is_no_answer(server: Running) -> None:
    with server.client as client:
        refused = client.get("/sdapi/v1/samplers")
    assert refused.status_code == 401 and refused.json()["detail"] == "A password is needed."


def test_webuiapi_makes_pictures(api: Any) -> None:
    result = api.txt2img(**SMALL, n_iter=2)
    assert [image.size for image in result.images] == [(64, 64)] * 2
    assert result.info["all_seeds"] == [5, 6] and result.parameters["sampler_index"] == "Euler a"
    again = api.txt2img(**SMALL)
    assert again.image.tobytes() == result.images[0].tobytes()
    large = api.txt2img(**SMALL, enable_hr=True, hr_scale=2, hr_upscaler=webuiapi.HiResUpscaler.Latent)
    assert large.image.size == (128, 128)


def test_webuiapi_starts_from_pictures_and_masks(api: Any) -> None:
    mask = Image.open(io.BytesIO(mask_bytes()))
    result = api.img2img(images=[picture()], mask_image=mask, inpainting_fill=1, denoising_strength=0.5, **SMALL)
    assert result.image.size == (64, 64) and result.info["denoising_strength"] == 0.5


def test_webuiapi_runs_scripts(api: Any) -> None:
    args = ["Seed", "1,2", [], "Steps", "1,2", [], "Nothing", "", [], True, True]
    result = api.txt2img(**SMALL, script_name="X/Y/Z plot", script_args=args)
    assert len(result.images) == 5


def test_webuiapi_enlarges_and_reads_pictures(api: Any) -> None:
    assert api.extra_single_image(image=picture(), upscaler_1="Lanczos", upscaling_resize=2).image.size == (128, 128)
    batch = api.extra_batch_images(images=[picture(), picture()], upscaler_1="Nearest", upscaling_resize=2)
    assert len(batch.images) == 2
    made = api.txt2img(**SMALL).image
    told = api.png_info(made)
    assert told.info.startswith("a red square\nNegative prompt: blurry\nSteps: 2")


def test_webuiapi_lists_what_is_here(api: Any) -> None:
    assert "Euler a" in api.util_get_sampler_names() and "karras" in api.util_get_scheduler_names()
    assert api.util_get_model_names()[0].startswith("tiny.safetensors")
    assert api.util_get_current_model().startswith("tiny.safetensors")
    for lists in (
        api.get_upscalers, api.get_latent_upscale_modes, api.get_loras, api.get_hypernetworks, api.get_face_restorers,
        api.get_realesrgan_models, api.get_prompt_styles, api.get_scripts, api.get_embeddings, api.get_memory,
        api.get_cmd_flags, api.get_sd_vae,
    ):  # fmt: skip
        assert isinstance(lists(), list | dict)
    api.refresh_checkpoints()


def test_webuiapi_sets_options(api: Any) -> None:
    api.set_options({"CLIP_stop_at_last_layers": 2})
    assert api.get_options()["CLIP_stop_at_last_layers"] == 2
    assert "Clip skip: 2" in api.txt2img(**SMALL).info["infotexts"][0]
    api.set_options({"CLIP_stop_at_last_layers": 1})
    api.util_set_model("tiny")


def test_webuiapi_follows_and_interrupts(api: Any) -> None:
    results: list[Any] = []
    long = {**SMALL, "steps": 1000, "n_iter": 50}
    asking = threading.Thread(target=lambda: results.append(api.txt2img(**long)))
    asking.start()
    deadline = time.monotonic() + 120
    while not api.get_progress()["progress"] > 0.01:
        assert time.monotonic() < deadline and asking.is_alive()
        time.sleep(0.05)
    api.interrupt()
    asking.join(timeout=120)
    assert len(results) == 1 and len(results[0].images) < 50


def test_webuiapi_raises_what_is_wrong(api: Any) -> None:
    with pytest.raises(RuntimeError) as caught:
        api.txt2img(**{**SMALL, "sampler_name": "no such"})
    assert caught.value.args[:2] == (400, '{"error":"HTTPException","detail":"Sampler not found","body":"",'
                                     '"errors":"Sampler not found","message":"Sampler not found"}')  # fmt: skip


@pytest.fixture
def made(api: Any, tmp_path: Path, server: Running) -> Path:
    """A picture file as the server sent it."""
    body = {**SMALL, "cfg_scale": 5.5}
    session = requests.Session()
    session.trust_env = False
    answer = session.post(
        f"{server.address}/sdapi/v1/txt2img", json=body, auth=("x", "open sesame"), timeout=120
    ).json()
    import base64

    file = tmp_path / "made.png"
    file.write_bytes(base64.b64decode(answer["images"][0]))
    return file


def test_sd_parsers_reads_our_pictures(made: Path) -> None:
    sd_parsers = pytest.importorskip("sd_parsers")
    read = sd_parsers.ParserManager().parse(made)
    assert read is not None and "AUTOMATIC1111" in str(read.generator)
    assert [prompt.value for prompt in read.prompts] == ["a red square"]
    assert [prompt.value for prompt in read.negative_prompts] == ["blurry"]
    (sampler,) = read.samplers
    assert sampler.name == "Euler" and sampler.parameters["seed"] == "5"
    assert [model.name for model in read.models] == ["tiny"]


def test_sd_prompt_reader_reads_our_pictures(made: Path) -> None:
    """Its reader alone: its window needs Tk."""
    reader = pytest.importorskip("sd_prompt_reader.image_data_reader")
    with made.open("rb") as file:
        read = reader.ImageDataReader(file)
    assert read.status.name == "READ_SUCCESS" and read.tool == "A1111 webUI"
    assert (read.positive, read.negative) == ("a red square", "blurry")
    assert read.parameter["seed"] == "5" and read.parameter["steps"] == "2" and read.parameter["size"] == "64x64"
