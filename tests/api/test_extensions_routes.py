"""``/api/v1/extensions``: shown before it is installed, changed by the owner alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient

from webui.api.app import build_app
from webui.engine.engine import Engine
from webui.engine.executor import Executor
from webui.settings import Settings

sys.path.append(str(Path(__file__).resolve().parents[1] / "plugins"))
from extension_sources import commit, files, git, repository, write, zipped

PLACE = "/api/v1/extensions"


class Asleep:
    """An Executor that is never asked for anything but its state."""

    def status(self) -> str:
        return "ready"

    def close(self) -> None: ...


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(**{f"{name}_dir": tmp_path / name for name in ("models", "outputs", "extensions")})


def engine_of(settings: Settings) -> Engine:
    return Engine.create(settings, cast(Executor, Asleep()))


def client_of(engine: Engine, address: str = "127.0.0.1", host: str = "127.0.0.1:7860") -> TestClient:
    client = (address, 50000)
    return TestClient(build_app(engine), base_url=f"http://{host}", client=client, raise_server_exceptions=False)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    made = engine_of(settings)
    yield made
    made.installer.close()
    made.store.close()


@pytest.fixture
def client(engine: Engine) -> TestClient:
    return client_of(engine)


def states(client: TestClient) -> dict[str, str]:
    return {row["name"]: row["state"] for row in client.get(PLACE).json()["extensions"]}


def confirm(client: TestClient, plan: dict[str, Any]) -> Any:
    return client.post(f"{PLACE}/plans/{plan['id']}/confirm", json={"tree_hash": plan["tree_hash"]})


def test_from_nothing_to_the_trash_and_back(client: TestClient, engine: Engine, tmp_path: Path) -> None:
    assert client.get(PLACE).json() == {
        "extensions": [], "trash": [], "folder": str(tmp_path / "extensions"), "safe_mode": False, "why_not": "",
    }  # fmt: skip
    place = repository(tmp_path / "sky", files(more="[permissions]\nnetwork = true\n"))
    answer = client.post(f"{PLACE}/plans", json={"source": str(place)})
    plan = answer.json()
    assert answer.status_code == 201 and plan["permissions"] == ["use the network"] and plan["difference"] is None
    assert [file["name"] for file in plan["files"]] == ["__init__.py", "extension.toml", "part/table.csv"]
    assert plan["commit"] == git(place, "rev-parse", "HEAD") and states(client) == {}
    assert confirm(client, plan).status_code == 200
    assert states(client) == {"sky": "starts at the next start"}
    assert confirm(client, plan).status_code == 404
    commit(place, files(version="2.0"))
    plan = client.post(f"{PLACE}/sky/plans", json={}).json()
    assert plan["difference"]["permissions_removed"] == ["use the network"]
    assert confirm(client, plan).json()["version"] == "2.0"
    assert client.get(PLACE).json()["extensions"][0]["previous"] == "1.0"
    assert client.post(f"{PLACE}/sky/rollback").status_code == 204
    assert client.get(PLACE).json()["extensions"][0]["version"] == "1.0"
    assert client.post(f"{PLACE}/sky/disable").status_code == 204 and states(client) == {"sky": "off"}
    assert client.post(f"{PLACE}/sky/enable").status_code == 204
    trash_id = client.delete(f"{PLACE}/sky").json()["id"]
    shown = client.get(PLACE).json()
    assert shown["extensions"] == [] and [(one["id"], one["name"]) for one in shown["trash"]] == [(trash_id, "sky")]
    assert client.post(f"{PLACE}/trash/{trash_id}/restore").json() == {"name": "sky"}
    client.delete(f"{PLACE}/sky")
    assert client.delete(f"{PLACE}/trash/all").status_code == 204 and client.get(PLACE).json()["trash"] == []


def test_a_zip_is_uploaded_and_updated_by_another(client: TestClient, tmp_path: Path) -> None:
    first = zipped(tmp_path / "a.zip", files()).read_bytes()
    plan = client.post(f"{PLACE}/plans/zip", params={"filename": "C:\\sky 1.zip"}, content=first).json()
    assert plan["from"] == "zip sky 1.zip"
    confirm(client, plan)
    newer = zipped(tmp_path / "b.zip", files(version="2.0")).read_bytes()
    assert client.post(f"{PLACE}/plans/zip", content=newer).status_code == 422
    plan = client.post(f"{PLACE}/plans/zip", params={"update": "sky"}, content=newer).json()
    assert plan["difference"]["changed"] == ["extension.toml"]
    assert confirm(client, plan).status_code == 200


def test_what_runs_is_on_and_what_changed_is_told(settings: Settings) -> None:
    write(settings.extensions_dir / "sky", files())
    engine = engine_of(settings)
    client = client_of(engine)
    assert states(client) == {"sky": "on"}
    client.post(f"{PLACE}/sky/disable")
    assert states(client) == {"sky": "stops at the next start"}
    engine.store.close()


def test_errors_are_sentences(client: TestClient, tmp_path: Path) -> None:
    place = str(write(tmp_path / "sky", files()))
    plan = client.post(f"{PLACE}/plans", json={"source": place}).json()
    wrong: list[tuple[Any, int]] = [
        (client.post(f"{PLACE}/plans", json={"source": "ext::sh -c x"}), 422),
        (client.post(f"{PLACE}/plans", json={"source": ""}), 422),
        (client.post(f"{PLACE}/plans", json={}), 422),
        (client.post(f"{PLACE}/plans", json=[1]), 422),
        (client.post(f"{PLACE}/plans", json={"source": 1}), 422),
        (client.post(f"{PLACE}/plans", json={"folder": place}), 422),
        (client.post(f"{PLACE}/plans", content=b"{"), 422),
        (client.post(f"{PLACE}/plans", content=b"x" * 70_000), 422),
        (client.post(f"{PLACE}/plans/zip", content=b""), 422),
        (client.post(f"{PLACE}/plans/zip", content=b"no zip"), 422),
        (client.post(f"{PLACE}/plans/{plan['id']}/confirm", json={"tree_hash": "0" * 64}), 422),
        (client.post(f"{PLACE}/plans/{plan['id']}/confirm", json={}), 422),
        (client.post(f"{PLACE}/plans/none/confirm", json={"tree_hash": plan["tree_hash"]}), 404),
        (client.delete(f"{PLACE}/plans/none"), 404),
        (client.post(f"{PLACE}/none/plans", json={}), 404),
        (client.post(f"{PLACE}/none/enable"), 404),
        (client.post(f"{PLACE}/none/rollback"), 404),
        (client.delete(f"{PLACE}/none"), 404),
        (client.delete(f"{PLACE}/..%2F..%2Foutputs"), 404),
        (client.post(f"{PLACE}/trash/..%2Fprevious/restore"), 404),
        (client.post(f"{PLACE}/trash/none/restore"), 404),
    ]
    for answer, status in wrong:
        assert answer.status_code == status, answer.text
        assert answer.json()["error"].endswith(".")
    assert client.delete(f"{PLACE}/plans/{plan['id']}").status_code == 204
    assert not list((tmp_path / "extensions").glob("[!.]*"))


CHANGES = [
    ("POST", "/plans"), ("POST", "/plans/zip"), ("POST", "/plans/x/confirm"), ("DELETE", "/plans/x"),
    ("POST", "/sky/plans"), ("POST", "/sky/enable"), ("POST", "/sky/disable"), ("POST", "/sky/rollback"),
    ("DELETE", "/sky"), ("POST", "/trash/x/restore"), ("DELETE", "/trash/all"),
]  # fmt: skip


def test_every_change_is_among_those_that_are_tried(engine: Engine) -> None:
    paths = build_app(engine).openapi()["paths"]
    changes = {
        (method.upper(), path.removeprefix(PLACE))
        for path, methods in paths.items()
        for method in methods
        if path.startswith(PLACE) and method != "get"
    }
    tried = {(method, path.replace("/sky", "/{name}").replace("/x/", "/{}/")) for method, path in CHANGES}
    assert len(changes) == len(tried) == len(CHANGES)


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize("who", ["another computer", "behind a proxy", "shared", "known by a name"])
def test_only_the_owner_changes_anything(method: str, path: str, who: str, settings: Settings) -> None:
    write(settings.extensions_dir / "sky", files())
    headers = {"X-Forwarded-For": "10.0.0.1"} if who == "behind a proxy" else {}
    if who == "shared":
        settings = replace(settings, host="0.0.0.0", password="secret")
    if who == "known by a name":
        settings = replace(settings, allowed_hosts=("pictures.example.org",))
    engine = engine_of(settings)
    client = client_of(engine, "192.168.1.7" if who == "another computer" else "127.0.0.1")
    answer = client.request(method, f"{PLACE}{path}", headers=headers, json={"source": str(settings.extensions_dir)})
    assert answer.status_code == 403 and "--enable-insecure-extension-access" in answer.json()["error"]
    shown = client.get(PLACE, headers=headers).json()
    assert shown["why_not"] == answer.json()["error"] and [row["state"] for row in shown["extensions"]] == ["on"]
    assert not (settings.state_dir / "extension-staging").exists()
    engine.store.close()


def test_clients_of_automatic1111_see_them(settings: Settings, tmp_path: Path) -> None:
    write(settings.extensions_dir / "off", files("off", "3.0"))
    place = repository(tmp_path / "sky", files())
    first = engine_of(settings)
    plan = client_of(first).post(f"{PLACE}/plans", json={"source": str(place), "ref": "main"}).json()
    confirm(client_of(first), plan)
    first.installer.switch("off", on=False)
    first.store.close()
    engine = engine_of(settings)
    rows = {row["name"]: row for row in client_of(engine).get("/sdapi/v1/extensions").json()}
    assert (rows["off"]["enabled"], rows["off"]["version"], rows["off"]["remote"]) == (False, "3.0", "")
    sky = rows["sky"]
    assert sky["enabled"] and (sky["remote"], sky["branch"], sky["commit_hash"]) == (
        place.as_uri(), "main", plan["commit"],
    )  # fmt: skip
    engine.store.close()


def test_the_command_line_may_open_it(settings: Settings) -> None:
    write(settings.extensions_dir / "sky", files())
    shared = replace(settings, host="0.0.0.0", password="secret", insecure_extension_access=True)
    engine = engine_of(shared)
    client = client_of(engine, "192.168.1.7", "192.168.1.5:7860")
    assert client.post(f"{PLACE}/sky/disable").status_code == 204
    assert client.get(PLACE).json()["why_not"] == ""
    engine.store.close()
