"""Every list has the keys and the kinds of values that AUTOMATIC1111 answered (the golden folder's ``_get``)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from benchmarks.golden import golden_folder
from webui.engine.engine import Engine

GET = golden_folder() / "a1111" / "_get"
ROUTES = (
    *("samplers", "schedulers", "upscalers", "latent-upscale-modes", "options", "scripts", "script-info", "sd-models"),
    *("sd-vae", "hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles", "embeddings", "loras"),
    *("memory", "progress", "extensions"),
)
needs_golden = pytest.mark.skipif(not GET.is_dir(), reason=f"the golden folder {GET} is not beside this checkout")


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, bool) or value is None:
        return type(value).__name__
    return "number" if isinstance(value, int | float) else type(value).__name__


def fits(ours: Any, theirs: Any) -> bool:
    """Whether ours has all keys of theirs, with values of the same kind; what is null may be anything else."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return all(key in ours and fits(ours[key], item) for key, item in theirs.items())
    if isinstance(ours, list) and isinstance(theirs, list):
        return not ours or not theirs or fits(ours[0], theirs[0])
    return ours == theirs or "NoneType" in (ours, theirs)


@needs_golden
@pytest.mark.parametrize("route", ROUTES)
def test_the_shape_is_upstreams(client: TestClient, route: str) -> None:
    ours = client.get(f"/sdapi/v1/{route}").json()
    theirs = json.loads((GET / f"{route}.json").read_text("utf-8"))
    if route == "embeddings":
        ours, theirs = {"loaded": {}, "skipped": {}}, {key: {} for key in theirs}
    assert fits(shape(ours), shape(theirs)), (shape(ours), shape(theirs))


@needs_golden
@pytest.mark.parametrize("route", ["samplers", "schedulers", "latent-upscale-modes"])
def test_every_entry_of_upstreams_is_there_as_it_is(client: TestClient, route: str) -> None:
    ours = client.get(f"/sdapi/v1/{route}").json()
    theirs = json.loads((GET / f"{route}.json").read_text("utf-8"))
    names = [entry["name"] for entry in theirs]
    assert [entry for entry in ours if entry["name"] in names] == theirs


@needs_golden
def test_the_fields_and_defaults_of_both_bodies_are_upstreams(client: TestClient) -> None:
    theirs = json.loads((GET / "openapi.json").read_text("utf-8"))["components"]["schemas"]
    ours = client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("StableDiffusionProcessingTxt2Img", "StableDiffusionProcessingImg2Img", "ExtrasSingleImageRequest"):
        wanted = {key: field.get("default") for key, field in theirs[name]["properties"].items()}
        got = {key: field.get("default") for key, field in ours[name]["properties"].items()}
        assert {key: got[key] for key in wanted} == wanted


@needs_golden
def test_every_route_of_upstreams_is_there(client: TestClient) -> None:
    theirs = json.loads((GET / "openapi.json").read_text("utf-8"))["paths"]
    for path, methods in theirs.items():
        for method in methods:
            answer = client.request(method, path, json={} if method == "post" else None)
            assert answer.status_code != 405 and answer.json() != {"detail": "Not Found"}, (method, path)
            if answer.status_code == 404:
                assert answer.json()["detail"] != "Not Found", (method, path)


def test_every_answer_tells_its_time(client: TestClient) -> None:
    for path in ("/sdapi/v1/samplers", "/internal/ping", "/sdapi/v1/nothing", "/api/v1/samplers"):
        assert float(client.get(path).headers["x-process-time"]) >= 0


def test_what_is_not_here_says_so(client: TestClient) -> None:
    caption = client.post("/sdapi/v1/interrogate", json={"image": "x", "model": "clip"})
    assert caption.status_code == 501 and "captioner" in caption.json()["detail"]
    assert client.post("/sdapi/v1/interrogate", json={"image": "x", "model": "gpt"}).status_code == 404
    assert client.post("/sdapi/v1/train/embedding", json={}).status_code == 501
    assert client.post("/sdapi/v1/server-kill").status_code == 501
    assert client.get("/internal/sysinfo").status_code == 404
    assert client.get("/sdapi/v1/nothing").json()["detail"] == "Not Found"


def test_hypernetworks_are_those_of_their_folder(client: TestClient, engine: Engine) -> None:
    file = engine.settings.models_dir / "hypernetworks" / "ink.safetensors"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x" * 64)
    engine.refresh()
    assert client.get("/sdapi/v1/hypernetworks").json() == [{"name": "ink", "path": str(file)}]
    file.unlink()
    engine.refresh()
