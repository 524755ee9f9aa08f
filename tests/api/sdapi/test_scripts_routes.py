from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from webui.engine.engine import Engine
from webui.metadata.infotext import parse

SMALL = {"prompt": "a red square", "steps": 2, "width": 64, "height": 64, "seed": 5}
XYZ = [6, "3,9", [], 1, "1,2", [], 0, "", [], True, False, False, False, False, False, False, 0, True]


def generated(client: TestClient, **body: Any) -> tuple[list[Image.Image], dict[str, Any]]:
    answer = client.post("/sdapi/v1/txt2img", json={**SMALL, **body})
    assert answer.status_code == 200, answer.text
    images = [Image.open(io.BytesIO(base64.b64decode(image))) for image in answer.json()["images"]]
    return images, json.loads(answer.json()["info"])


def test_a_plot_is_one_job_and_answers_its_sheet(client: TestClient, engine: Engine) -> None:
    images, info = generated(client, script_name="x/y/z plot", script_args=XYZ)
    assert len(images) == 1 and images[0].size[0] == 2 * 64 + 48
    assert images[0].info["parameters"] == info["infotexts"][0]
    fields = parse(info["infotexts"][0]).fields
    assert (fields["Script"], fields["X Type"], fields["Fixed Y Values"]) == ("X/Y/Z plot", "CFG Scale", "1, 2")
    assert info["index_of_first_image"] == 1 and info["all_seeds"] == [1, 1, 2, 2] and info["cfg_scale"] == 3
    assert len(info["infotexts"]) == 5
    assert engine.jobs(1)[0].progress.pictures == 4
    images, _ = generated(client, script_name="X/Y/Z plot", script_args=[*XYZ[:10], True])
    assert [image.size for image in images[1:]] == [(64, 64)] * 4


def test_the_cells_are_the_pictures_of_their_own_requests(client: TestClient) -> None:
    images, _ = generated(client, script_name="x/y/z plot", script_args=[*XYZ[:9], False, True])
    assert images[0].size == (128, 128)
    alone, _ = generated(client, seed=2, cfg_scale=9)
    assert images[4].tobytes() == alone[0].tobytes() == images[0].crop((64, 64, 128, 128)).tobytes()


def test_a_matrix_and_prompts_from_lines(client: TestClient) -> None:
    images, info = generated(client, script_name="Prompt Matrix", prompt="a|b|c")
    assert len(images) == 5 and info["all_prompts"] == ["a", "a, b", "a, c", "a, b, c"]
    lines = "a blue dog\n--prompt 'a green bird' --steps 1 --seed 9"
    images, info = generated(
        client, script_name="prompts from file or textbox", script_args=[False, False, "end", lines]
    )
    assert len(images) == 3 and images[0].size == (128, 64)
    assert info["all_prompts"] == ["a red square a blue dog", "a red square a green bird"]
    assert info["infotexts"][0] == "\n".join(info["infotexts"][1:])


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"script_name": "x/y/z plot", "script_args": ["Sampler", "Eulr"]}, "Euler"),
        ({"script_name": "x/y/z plot", "script_args": ["Hires steps", "1"]}, "hires fix"),
        ({"script_name": "prompt matrix", "script_args": [0, 0, 0, 0, 0, 0]}, "script arguments"),
        ({"alwayson_scripts": {"Prompt matrix": {"args": []}}}, "selectable"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_queued(
    client: TestClient, engine: Engine, body: dict[str, Any], sentence: str
) -> None:
    before = engine.jobs(1)
    answer = client.post("/sdapi/v1/txt2img", json={**SMALL, **body})
    assert answer.status_code == 422 and sentence in answer.json()["detail"]
    assert engine.jobs(1) == before


def test_the_scripts_are_listed_with_their_arguments(client: TestClient) -> None:
    listed = client.get("/sdapi/v1/scripts").json()
    assert listed["txt2img"][:3] == ["prompt matrix", "prompts from file or textbox", "x/y/z plot"]
    assert "soft inpainting" in listed["img2img"] and "soft inpainting" not in listed["txt2img"]
    infos = {(row["name"], row["is_img2img"]): row for row in client.get("/sdapi/v1/script-info").json()}
    assert len(infos["x/y/z plot", False]["args"]) == 18
    assert infos["x/y/z plot", False]["args"][0]["choices"][6] == "CFG Scale"


def test_outpainting_answers_the_finished_pictures_alone(client: TestClient, engine: Engine) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), (180, 90, 40)).save(stream, "PNG")
    start = base64.b64encode(stream.getvalue()).decode()
    body = {**SMALL, "init_images": [start], "width": 128, "height": 128, "n_iter": 2, "denoising_strength": 0.8}
    body |= {"script_name": "Outpainting mk2", "script_args": [None, 64, 1, ["right", "down"], 1.0, 0.05]}
    answer = client.post("/sdapi/v1/img2img", json=body)
    assert answer.status_code == 200, answer.text
    images = [Image.open(io.BytesIO(base64.b64decode(image))) for image in answer.json()["images"]]
    info = json.loads(answer.json()["info"])
    assert [image.size for image in images] == [(256, 128), (128, 128), (128, 128)], "an overview and two pictures"
    assert info["all_seeds"] == [5, 6] and info["index_of_first_image"] == 1
    assert all("recipe" in image.info for image in images[1:])
    assert engine.jobs(1)[0].progress.pictures == 4


def test_the_outpainting_scripts_are_listed_with_their_arguments(client: TestClient) -> None:
    rows = client.get("/sdapi/v1/script-info").json()
    infos = {row["name"]: row for row in rows if row["is_img2img"]}
    labels = [argument["label"] for argument in infos["outpainting mk2"]["args"]]
    assert labels[1:4] == ["Pixels to expand", "Mask blur", "Outpainting direction"] and len(labels) == 6
    content = infos["poor man's outpainting"]["args"][2]
    assert content["choices"] == ["fill", "original", "latent noise", "latent nothing"]
