"""Conditioning modules over HTTP: their schemas, requests with them, and ``alwayson_scripts``."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from module_toy import TINT
from tiny_model import picture_bytes, tiny_settings

from webui.api.app import build_app
from webui.engine.engine import Engine
from webui.engine.inprocess import InProcess
from webui.engine.runner import Runner
from webui.images.pixels import read_pixels

OWN = """
    def always_on(self, args):
        if args == ["raise"]:
            raise KeyError("no")
        return [{"strength": one["weight"]} for one in args if one.get("enabled")]

    def preview(self, options, pictures):
        import numpy as np
        return np.zeros((8, 16 if options.words == "own" else 1 / 0, 3), np.uint8)

    def palette(self, options, request):
        from webui.conditioning import Paint, Palette
        if options.mode == "Hard":
            return [options.words]
        paint = Paint(colour=options.words or "#00ff00", name="green", text=request.prompt, places=((0, 0, 0.5, 1),))
        return Palette(paints=(paint,), rest=f"{request.size.width} x {request.size.height}", problem="none")
"""
PLAIN = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64, "seed": 7, "sampler_name": "Euler"}


@pytest.fixture
def client(tmp_path: Path, tiny_checkpoint: Path) -> Iterator[TestClient]:
    settings = tiny_settings(tmp_path, tiny_checkpoint)
    settings.extensions_dir.mkdir()
    heavy = 'Preprocessor(name="heavy", run=negative, in_worker=True), Preprocessor(name="negative"'
    tint = TINT.replace('Preprocessor(name="negative"', heavy)
    (settings.extensions_dir / "tint.py").write_text(tint, "utf-8")
    own = TINT.replace('"Tint"', '"Own Net"').replace("\n    def prepare(", OWN + "\n    def prepare(")
    (settings.extensions_dir / "own.py").write_text(own.split("@hookimpl\ndef register_preprocessors")[0], "utf-8")
    engine = Engine.create(settings, InProcess(Runner.start(settings)))
    engine.start()
    assert engine.problems() == []
    yield TestClient(build_app(engine), raise_server_exceptions=False)
    engine.close()


def test_modules_are_listed_with_their_schemas(client: TestClient) -> None:
    own, tint = sorted(client.get("/api/v1/modules").json(), key=lambda one: str(one["name"]))
    assert (tint["name"], tint["label"], tint["units"]) == ("Tint", "Tint of it", 2)
    told = tint["schema"]["properties"]
    assert told["strength"] == {"title": "Strength", "type": "number", "default": 1.0, "minimum": 0, "maximum": 2}
    assert told["preprocessor"]["enum"] == ["", "canny", "heavy", "negative"] and told["model"]["enum"] == [""]
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["OwnNetOptions"]["properties"]["mode"]["enum"] == ["Soft", "Hard"]
    assert own["name"] == "Own Net"


def test_a_wrong_option_is_refused_at_once(client: TestClient) -> None:
    body = {"prompt": "x", "modules": [{"name": "Tint", "options": {"strength": 9}}]}
    answer = client.post("/api/v1/jobs", json=body)
    assert answer.status_code == 422
    assert answer.json() == {"error": "Tint: Strength is 9; it must be a number from 0 to 2."}


def test_a_picture_in_a_request_is_stored(client: TestClient) -> None:
    text = base64.b64encode(picture_bytes(1024, 1024)).decode()
    assert len(text) > 100_000, "more than a text may have"
    body = {"prompt": "x", "size": {"width": 64, "height": 64}}
    answer = client.post("/api/v1/jobs", json={**body, "modules": [{"name": "Tint", "options": {"image": text}}]})
    digest = hashlib.sha256(picture_bytes(1024, 1024)).hexdigest()
    assert answer.status_code == 201 and answer.json()["request"]["modules"][0]["options"]["image"] == digest


def test_a_preview_is_the_control_picture(client: TestClient) -> None:
    picture = client.post("/api/v1/inputs", content=picture_bytes()).json()["id"]

    def asked(name: str = "Tint", **options: Any) -> Any:
        return client.post("/api/v1/modules/preview", json={"name": name, "options": options})

    answer = asked(image=picture, preprocessor="negative", strength=0.5)
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    assert np.array_equal(read_pixels(answer.content), 255 - read_pixels(picture_bytes()))
    assert np.array_equal(read_pixels(asked(image=picture).content), read_pixels(picture_bytes()))
    assert asked().json() == {"error": "There is no picture yet; choose one, then look at its preview."}
    assert asked(image="ab" * 32).status_code == 404
    assert 'did you mean "negative"?' in asked(image=picture, preprocessor="negativ").json()["error"]
    assert "Strength is 9" in asked(image=picture, strength=9).json()["error"]
    heavy = asked(image=picture, preprocessor="heavy")
    assert heavy.status_code == 200, "the worker made it"
    assert np.array_equal(read_pixels(heavy.content), 255 - read_pixels(picture_bytes()))
    assert client.get("/api/v1/jobs").json() == []
    assert asked("Own Net", words="fog").json() == {
        "error": "extension own: preview of Own Net failed: ZeroDivisionError: division by zero (own.py, line 33)"
    }
    assert read_pixels(asked("Own Net", words="own").content).shape == (8, 16, 3)


def test_a_palette_says_what_each_colour_stands_for(client: TestClient) -> None:
    def asked(name: str = "Own Net", request: Any = None, **options: Any) -> Any:
        body = {"name": name, "options": options, "request": request or {}}
        return client.post("/api/v1/modules/palette", json=body)

    request = {"prompt": "a cat <lora:none:1># not a dog", "size": {"width": 64, "height": 128}}
    paint = {"colour": "#00ff00", "name": "green", "text": "a cat \n", "shown": "", "places": [[0, 0, 0.5, 1]]}
    assert asked(request=request).json() == {"paints": [paint], "rest": "64 x 128", "problem": "none"}
    assert asked("Tint").json() == {"error": "Tint has nothing to be painted."}
    assert asked("Tnt").status_code == asked(strength=9).status_code == 422
    assert "Width is 5" in asked(request={"size": {"width": 5, "height": 64}}).json()["error"]
    assert asked(mode="Hard").json() == {"error": "The palette of Own Net is a list; it must be a Palette."}
    wrong = asked(words="green")
    assert wrong.status_code == 500 and "palette of Own Net failed: ValueError: the colour" in wrong.json()["error"]


def made_with(client: TestClient, name: str, args: Any) -> Any:
    body = {**PLAIN, "alwayson_scripts": {name: {"args": args}}}
    return client.post("/sdapi/v1/txt2img", json=body)


def test_a_module_is_an_always_on_script(client: TestClient) -> None:
    picture = base64.b64encode(picture_bytes()).decode()
    answer = made_with(client, "tint", [{"image": picture, "strength": 0.5}, {"words": "fog"}])
    (text,) = json.loads(answer.json()["info"])["infotexts"]
    digest = hashlib.sha256(picture_bytes()).hexdigest()
    assert f'Tint: "Picture: {digest}, Strength: 0.5", Tint 2: "Words: fog"' in text
    assert made_with(client, "Tint", []).status_code == 200
    assert made_with(client, "Tint", [{"strength": 9}]).status_code == 422
    assert made_with(client, "Tint", [5]).status_code == 422


def test_modules_of_an_infotext_are_used_unless_the_body_names_them(client: TestClient) -> None:
    def text_of(**more: Any) -> str:
        answer = client.post("/sdapi/v1/txt2img", json={**PLAIN, **more})
        (text,) = json.loads(answer.json()["info"])["infotexts"]
        return str(text)

    tinted = {"alwayson_scripts": {"Tint": {"args": [{"strength": 0.5, "words": "fog"}]}}}
    told = text_of(**tinted)
    assert 'Tint: "Strength: 0.5, Words: fog"' in told
    assert 'Tint: "Strength: 0.5, Words: fog"' in text_of(infotext=told)
    other = {"alwayson_scripts": {"tint": {"args": [{"strength": 0.25}]}}}
    assert 'Tint: "Strength: 0.25"' in text_of(infotext=told, **other) and "fog" not in text_of(infotext=told, **other)
    assert "Tint" not in text_of(infotext=told, alwayson_scripts={"Tint": {"args": []}})


def test_a_module_may_have_arguments_of_its_own(client: TestClient) -> None:
    answer = made_with(client, "OWN NET", [{"enabled": True, "weight": 0.25}, {"weight": 1}])
    (text,) = json.loads(answer.json()["info"])["infotexts"]
    assert 'Own Net: "Strength: 0.25"' in text and "Own Net 2" not in text
    failed = made_with(client, "Own Net", ["raise"])
    assert failed.status_code == 500 and "always_on of Own Net failed: KeyError: 'no'" in failed.text
    assert "own net" in client.get("/sdapi/v1/scripts").json()["txt2img"]
    info = [one for one in client.get("/sdapi/v1/script-info").json() if one["name"] == "tint"]
    assert [len(one["args"]) for one in info] == [2, 2] and all(one["is_alwayson"] for one in info)


def test_the_health_route_tells_times_and_failures_of_both_processes(client: TestClient) -> None:
    picture = client.post("/api/v1/inputs", content=picture_bytes()).json()["id"]
    asked = client.post(
        "/api/v1/modules/preview", json={"name": "Own Net", "options": {"words": "fog", "image": picture}}
    )
    assert asked.status_code == 500
    health = client.get("/api/v1/extensions/health").json()
    own, tint = sorted(health["extensions"], key=lambda one: str(one["name"]))
    assert (own["name"], own["state"], own["failures"]) == ("own", "on", 1)
    (problem,) = own["problems"]
    assert problem["hook"] == "preview of Own Net" and problem["file"] == "own.py" and problem["line"] == 33
    assert health["problems"] == [problem["sentence"]]
    assert own["hooks"]["server"]["preview of Own Net"]["calls"] == 1
    assert tint["failures"] == 0 and tint["problems"] == []
    assert tint["hooks"]["server"]["register_preprocessors"]["total_s"] > 0
