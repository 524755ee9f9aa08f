from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient
from header_files import header_file
from PIL import Image

from webui.api.app import build_app
from webui.engine.engine import Engine
from webui.engine.executor import Executor
from webui.engine.jobs import GENERATING, Output, Progress
from webui.settings import Settings


class Asleep:
    """An Executor that is never asked for anything but its state."""

    def status(self) -> str:
        return "ready"

    def close(self) -> None: ...


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    for number in range(5):
        header_file(tmp_path / f"models/Lora/a/{number}.safetensors", {"modelspec.title": f"Title {number}"})
    Image.new("RGB", (64, 96), "red").save(tmp_path / "models/Lora/a/1.preview.png")
    folders = {f"{name}_dir": tmp_path / name for name in ("models", "outputs", "extensions")}
    (tmp_path / "extensions").mkdir()
    engine = Engine.create(Settings(**folders), cast(Executor, Asleep()))
    yield engine
    engine.store.close()


@pytest.fixture
def client(engine: Engine) -> TestClient:
    return TestClient(build_app(engine), raise_server_exceptions=False)


def card(client: TestClient, name: str) -> dict[str, Any]:
    cards = client.get("/api/v1/cards", params={"kind": "lora"}).json()["cards"]
    return next(card for card in cards if card["name"] == name)


def test_a_page_of_cards(client: TestClient, engine: Engine) -> None:
    answer = client.get("/api/v1/cards", params={"kind": "lora", "sort": "name", "descending": True, "limit": 2}).json()
    assert (answer["total"], [one["name"] for one in answer["cards"]]) == (5, ["4", "3"])
    assert answer["unread"] == 5 and answer["place"] == str(engine.settings.models_dir / "Lora")
    assert client.get("/api/v1/cards/folders", params={"kind": "lora"}).json() == [{"path": "a", "count": 5}]
    engine.cards.read(engine.cards.unread())
    found = client.get("/api/v1/cards", params={"search": "title 3"}).json()
    assert [one["name"] for one in found["cards"]] == ["3"] and found["unread"] == 0
    header_file(engine.settings.models_dir / "Lora/new.safetensors")
    assert client.get("/api/v1/cards").json()["total"] == 5
    assert client.get("/api/v1/cards", params={"refresh": True}).json()["total"] == 6


@pytest.mark.parametrize("query", ["kind=none", "sort=size", "offset=-1", "limit=0", "limit=100000"])
def test_a_question_that_means_nothing_is_answered_with_a_sentence(client: TestClient, query: str) -> None:
    answer = client.get(f"/api/v1/cards?{query}")
    assert answer.status_code == 422 and answer.json()["error"]


def test_files_are_named_by_ids_alone(client: TestClient, engine: Engine) -> None:
    path = str(engine.settings.models_dir / "Lora/a/1.safetensors")
    for name in ("..%2F..%2Fetc%2Fpasswd", path.replace("/", "%2F"), "1.safetensors", "0" * 24):
        for answer in (
            client.get(f"/api/v1/cards/{name}"),
            client.get(f"/api/v1/cards/{name}/thumbnail"),
            client.put(f"/api/v1/cards/{name}/notes", json={"notes": "x"}),
        ):
            assert answer.status_code == 404, answer.text
    detail = client.get(f"/api/v1/cards/{card(client, '1')['id']}").json()
    assert detail["path"] == path and detail["metadata"] == {"modelspec.title": "Title 1"}


def test_a_thumbnail_is_asked_for_once(client: TestClient) -> None:
    one = card(client, "1")
    place = f"/api/v1/cards/{one['id']}/thumbnail"
    answer = client.get(place)
    assert answer.headers["content-type"] == "image/webp" and answer.headers["etag"] == f'"{one["thumbnail"]}"'
    assert "no-cache" in answer.headers["cache-control"]
    assert Image.open(io.BytesIO(answer.content)).size == (64, 96)
    assert client.get(place, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert "max-age" in client.get(place, params={"v": one["thumbnail"]}).headers["cache-control"]
    missing = client.get(f"/api/v1/cards/{card(client, '2')['id']}/thumbnail")
    assert (missing.status_code, missing.json()) == (404, {"error": "This model has no preview."})


def test_notes(client: TestClient, engine: Engine) -> None:
    place = f"/api/v1/cards/{card(client, '1')['id']}/notes"
    answer = client.put(place, json={"activation_text": "inkstyle", "preferred_weight": 0.5})
    assert answer.status_code == 200 and answer.json()["activation_text"] == "inkstyle"
    table = json.loads((engine.settings.models_dir / "Lora/a/1.json").read_text())
    assert table == {"activation text": "inkstyle", "preferred weight": 0.5}
    for wrong in (b"", b"{", b"[1]", b'{"path": "x"}', b'{"notes": 1}', b"[" * 100_000, b" " * 1_100_000):
        refused = client.put(place, content=wrong)
        assert refused.status_code == 422 and refused.json()["error"], wrong[:20]


def test_a_finished_picture_becomes_the_preview(client: TestClient, engine: Engine) -> None:
    picture = engine.settings.outputs_dir / "one.png"
    Image.new("RGB", (16, 16), "blue").save(picture)
    job = engine._ledger.add(GENERATING, {}, Progress())
    engine.store.add_output(job.id, Output(id="o1", path="one.png", index=0, seed=1, width=16, height=16, infotext=""))
    one = card(client, "2")
    place = f"/api/v1/cards/{one['id']}/preview"
    assert client.put(place, json={"output": "o1"}).json()["thumbnail"] != one["thumbnail"]
    assert (engine.settings.models_dir / "Lora/a/2.png").read_bytes() == picture.read_bytes()
    assert client.put(place, json={"output": "o2"}).status_code == 404
    for wrong in ({}, {"output": 1}, [], "o1"):
        assert client.put(place, json=wrong).status_code == 422


def test_a_pasted_text_calls_a_lora_by_the_name_that_it_has_here(client: TestClient, engine: Engine) -> None:
    header_file(engine.settings.models_dir / "Lora/renamed.safetensors", {"sshs_model_hash": "ab" * 32})
    text = (
        "a cat <lora:old name:0.5> <lora:unknown:1>\n"
        'Steps: 20, Sampler: Euler, Seed: 1, Lora hashes: "old name: abababababab, unknown: 121212121212"'
    )
    assert engine.read_parameters(text).request.prompt == "a cat <lora:renamed:0.5> <lora:unknown:1>"
