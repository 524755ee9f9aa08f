"""``/controlnet/*`` and ``alwayson_scripts.ControlNet`` over HTTP, with the extension loaded as users have it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from controlnet_bench import tiny
from controlnet_parts import FOLDER, part
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.torch import save_file
from test_controlnet_numbers import control_weights
from tiny_model import mask_bytes, picture_bytes, tiny_settings

from webui.api.app import build_app
from webui.engine.control_pictures import in_server
from webui.engine.engine import Engine
from webui.engine.executor import Control
from webui.engine.inprocess import InProcess
from webui.engine.runner import Runner
from webui.images.pixels import read_pixels
from webui.metadata.files import read_picture_texts
from webui.metadata.recipe import Recipe
from webui.metadata.verdict import Outcome
from webui.preprocessors.canny import canny

NAME = "control_tiny_canny"


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Runner:
    settings = replace(tiny_settings(tmp_path_factory.mktemp("controlnet"), tiny_checkpoint), extensions_dir=FOLDER)
    (settings.models_dir / "ControlNet").mkdir()
    weights = control_weights(tiny(tiny_checkpoint).unet)
    save_file(weights, settings.models_dir / "ControlNet" / f"{NAME}.safetensors")
    return Runner.start(settings)


@pytest.fixture(scope="module")
def client(runner: Runner) -> Iterator[TestClient]:
    engine = Engine.create(runner.settings, InProcess(runner))
    engine.start()
    with TestClient(build_app(engine), raise_server_exceptions=False) as client:
        yield client
    engine.close()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pixels_of(text: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def answer(client: TestClient, path: str) -> Any:
    response = client.get(f"/controlnet/{path}")
    assert response.status_code == 200, response.text
    return response.json()


def test_version_and_settings(client: TestClient) -> None:
    assert answer(client, "version") == {"version": 3}
    assert answer(client, "settings") == {"control_net_unit_count": 3}


def test_models_are_listed_with_their_short_hash(client: TestClient, runner: Runner) -> None:
    file = runner.settings.models_dir / "ControlNet" / f"{NAME}.safetensors"
    listed = answer(client, "model_list")["model_list"]
    assert listed == [f"{NAME} [{part('short_hash').short_hash(file)}]"]


def test_the_short_hash_is_of_64_kib_from_1_mib_on(tmp_path: Path) -> None:
    import hashlib

    data = np.random.default_rng(0).integers(0, 256, 2**20 + 2**17, dtype=np.uint8).tobytes()
    (tmp_path / "x").write_bytes(data)
    assert part("short_hash").short_hash(tmp_path / "x") == hashlib.sha256(data[2**20 : 2**20 + 2**16]).hexdigest()[:8]
    (tmp_path / "small").write_bytes(b"abc")
    assert part("short_hash").short_hash(tmp_path / "small") == "e3b0c442"


def test_modules_are_listed_with_their_sliders(client: TestClient) -> None:
    inner, shown = (answer(client, f"module_list?alias_names={alias}") for alias in ("false", "true"))
    assert {"none", "canny", "invert", "inpaint", "color", "reference_only"} <= set(inner["module_list"])
    assert "invert (from white bg & black line)" in shown["module_list"]
    assert set(inner["module_detail"]) == set(inner["module_list"])
    sliders = inner["module_detail"]["canny"]["sliders"]
    assert [slider["value"] for slider in sliders] == [512, 100, 200]
    assert {"name", "value", "min", "max", "step"} == set(sliders[0])
    assert inner["module_detail"]["reference_only"]["model_free"] is True


def test_control_types_match_modules_and_models(client: TestClient) -> None:
    types = answer(client, "control_types")["control_types"]
    assert types["All"]["default_option"] == "none" and types["All"]["default_model"] == "None"
    assert types["Canny"]["default_option"] == "canny"
    assert types["Canny"]["default_model"].startswith(NAME)
    assert types["Depth"]["default_model"] == "None"
    for one in types.values():
        assert one["module_list"][0] == "none" and one["model_list"][0] == "None"


def test_detect_makes_control_pictures(client: TestClient) -> None:
    data = picture_bytes(96, 64)
    body = {"controlnet_module": "canny", "controlnet_input_images": [encoded(data)], "controlnet_processor_res": 64}
    response = client.post("/controlnet/detect", json=body).json()
    assert response["info"] == "Success"
    assert np.array_equal(pixels_of(response["images"][0]), canny(read_pixels(data), {}))
    body = {
        "controlnet_module": "inpaint_only",
        "controlnet_input_images": [encoded(picture_bytes())],
        "controlnet_masks": [encoded(mask_bytes())],
    }
    made = pixels_of(client.post("/controlnet/detect", json=body).json()["images"][0])
    assert not made[20:40, 20:40].any() and made[:10].any()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"controlnet_module": "canny"}, "No image"),
        ({"controlnet_module": "openpose", "controlnet_input_images": ["x"]}, "not available"),
        ({"controlnet_module": "ip-adapter-auto", "controlnet_input_images": ["x"]}, "not supported"),
        ({"controlnet_module": "inpaint_only", "controlnet_input_images": ["x"]}, "controlnet_masks"),
        ({"controlnet_module": "canny", "controlnet_input_images": ["?"]}, "Invalid"),
    ],
)
def test_what_cannot_be_detected_is_refused(client: TestClient, body: dict[str, Any], words: str) -> None:
    response = client.post("/controlnet/detect", json=body)
    assert response.status_code == 422
    assert words in response.text


PLAIN = {"prompt": "a red square", "width": 64, "height": 64, "steps": 3, "seed": 5, "sampler_name": "Euler"}


def made(client: TestClient, *units: dict[str, Any], path: str = "txt2img", **more: Any) -> bytes:
    scripts = {"ControlNet": {"args": list(units)}} if units else {}
    response = client.post(f"/sdapi/v1/{path}", json={**PLAIN, **more, "alwayson_scripts": scripts})
    assert response.status_code == 200, response.text
    return base64.b64decode(response.json()["images"][0])


def test_a_unit_steers_the_picture_is_told_in_it_and_made_again(client: TestClient, runner: Runner) -> None:
    listed = answer(client, "model_list")["model_list"][0]
    unit = {"enabled": True, "module": "canny", "model": listed, "image": encoded(picture_bytes(seed=3)), "weight": 0.9}
    data = made(client, unit)
    assert not np.array_equal(read_pixels(data), read_pixels(made(client)))
    texts = read_picture_texts(data)
    expected = f'ControlNet 0: "Module: canny, Model: {listed}, Weight: 0.9, Resize Mode: Crop and Resize'
    assert expected in texts["parameters"]
    recipe = Recipe.from_json(texts["recipe"])
    assert [plugin.name for plugin in recipe.plugins] == ["controlnet"]
    assert ("controlnet", NAME) in [(file.role, file.name) for file in recipe.models]
    assert len(recipe.inputs) == 1
    verdict = runner.reproduce(data, lambda report: None, Control())
    assert verdict.outcome is Outcome.BIT_EXACT, verdict.reasons


def test_img2img_lends_its_start_image(client: TestClient) -> None:
    picture = encoded(picture_bytes(seed=3))
    unit = {"module": "canny", "model": NAME}
    options = {"path": "img2img", "init_images": [picture], "denoising_strength": 0.8}
    lent, given = made(client, unit, **options), made(client, {**unit, "image": picture}, **options)
    assert np.array_equal(read_pixels(lent), read_pixels(given))
    assert not np.array_equal(read_pixels(lent), read_pixels(made(client, **options)))


def test_inpainting_lends_its_mask(client: TestClient) -> None:
    picture, mask = encoded(picture_bytes(seed=3)), encoded(mask_bytes())
    options = {"path": "img2img", "init_images": [picture], "mask": mask, "inpaint_full_res": False, "mask_blur": 0}
    unit = {"module": "inpaint_global_harmonious", "model": NAME}
    lent, given = made(client, unit, **options), made(client, {**unit, "image": picture, "mask": mask}, **options)
    assert np.array_equal(read_pixels(lent), read_pixels(given))
    only = made(client, unit, **{**options, "inpaint_full_res": True, "inpaint_full_res_padding": 8})
    assert not np.array_equal(read_pixels(only), read_pixels(lent))


def test_errors_are_one_sentence(client: TestClient) -> None:
    scripts = {"controlnet": {"args": [{"module": "canny", "model": NAME}]}}
    response = client.post("/sdapi/v1/txt2img", json={**PLAIN, "alwayson_scripts": scripts})
    assert response.status_code >= 400
    assert "no control picture" in response.text
    scripts = {"controlnet": {"args": [{"module": "canny", "model": "absent", "image": encoded(picture_bytes())}]}}
    response = client.post("/sdapi/v1/txt2img", json={**PLAIN, "alwayson_scripts": scripts})
    assert response.status_code >= 400 and "absent" in response.text


def test_two_passes_have_a_control_picture_each(client: TestClient) -> None:
    unit = {"module": "canny", "model": NAME, "image": encoded(picture_bytes(seed=3))}
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    low, high, both = (
        read_pixels(made(client, {**unit, "hr_option": f"{name} only"}, **hires))
        if name
        else read_pixels(made(client, unit, **hires))
        for name in ("Low res", "High res", "")
    )
    assert both.shape == (128, 128, 3)
    assert len({pixels.tobytes() for pixels in (low, high, both, read_pixels(made(client, **hires)))}) == 4


def test_the_page_previews_a_control_picture_at_its_own_size(runner: Runner) -> None:
    data, mask = picture_bytes(96, 64), mask_bytes(96, 64)
    stored = {"a" * 64: data, "b" * 64: mask}
    module = runner.plugins.conditioning_modules["ControlNet"]

    def shown(**options: Any) -> np.ndarray:
        making = in_server(runner.plugins, runner.library, stored.__getitem__)
        return making.of_module(module, {"image": "a" * 64, **options})

    assert np.array_equal(shown(module="canny", processor_res=64), canny(read_pixels(data), {}))
    assert np.array_equal(shown(module="invert"), 255 - read_pixels(data))
    masked = shown(module="inpaint_only", mask="b" * 64)
    assert not masked[20:40, 20:40].any() and masked[:10].any()
