from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from teaching_toy import toy_pictures, toy_request, toy_settings
from tiny_model import picture_bytes

from webui.api.app import build_app
from webui.engine.engine import Engine
from webui.engine.executor import Order, Report, Tell
from webui.training.request import TrainingRequest


class Quiet:
    """An Executor that is never asked, and a Trainer that goes on until it is told to stop."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def run(self, order: Order, tell: Tell) -> None:
        self.stopped.wait(60)
        self.stopped.clear()
        tell(Report("interrupted"))

    def interrupt(self, job: str) -> None:
        self.stopped.set()

    def skip(self, job: str) -> None: ...
    def warm_up(self) -> None: ...
    def hold(self, on: bool) -> None: ...
    def rest(self) -> None: ...
    def status(self) -> str:
        return "ready"

    def close(self) -> None:
        self.stopped.set()


@pytest.fixture
def client(tmp_path: Path, tiny_checkpoint: Path) -> Iterator[TestClient]:
    engine = Engine.create(toy_settings(tmp_path, tiny_checkpoint), Quiet(), Quiet())
    engine.start()
    yield TestClient(build_app(engine), raise_server_exceptions=False)
    engine.close()


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, Any]:
    return toy_request(toy_pictures(tmp_path / "pictures"))


def until(client: TestClient, job: str, state: str) -> dict[str, Any]:
    for _ in range(3000):
        found: dict[str, Any] = client.get(f"/api/v1/training/{job}").json()
        if found["job"]["state"] == state:
            return found
        threading.Event().wait(0.01)
    raise AssertionError(f"it is {found['job']['state']}")


def test_a_training_is_queued_paused_gone_on_with_and_ended(client: TestClient, plain: dict[str, Any]) -> None:
    answer = client.post("/api/v1/training", json=plain)
    assert answer.status_code == 201
    job = answer.json()
    assert job["kind"] == "train" and TrainingRequest.from_dict(job["request"]).optimiser.rate == 0.05
    until(client, job["id"], "running")
    assert [found["id"] for found in client.get("/api/v1/jobs?state=active").json()] == [job["id"]]
    assert client.post(f"/api/v1/training/{job['id']}/pause").status_code == 200
    until(client, job["id"], "paused")
    assert client.post(f"/api/v1/training/{job['id']}/go-on").json()["state"] in ("queued", "running")
    until(client, job["id"], "running")
    client.delete(f"/api/v1/jobs/{job['id']}")
    view = until(client, job["id"], "interrupted")
    assert view["request"]["name"] == "toy thing" and view["losses"] == [] and view["file"] is None
    told = client.get(f"/api/v1/jobs/{job['id']}/events").text
    assert [line[7:] for line in told.splitlines() if line.startswith("event: ")] == [
        "queued", "started", "paused", "queued", "started", "interrupted",
    ]  # fmt: skip


def test_losses_and_samples_come_from_the_run_s_folder(client: TestClient, plain: dict[str, Any]) -> None:
    job = client.post("/api/v1/training", json=plain).json()["id"]
    folder = Path(client.get(f"/api/v1/training/{job}").json()["folder"])
    (folder / "samples").mkdir(parents=True)
    (folder / "samples" / "000200.png").write_bytes(picture_bytes())
    (folder / "losses.csv").write_text("step,loss,rate,seconds\r\n1,0.5,1e-4,0.1\r\n2,nan,1e-4,0.1\r\n3,0.25,1e-4,")
    view = client.get(f"/api/v1/training/{job}").json()
    assert view["losses"] == [{"step": 1, "loss": 0.5, "smooth": 0.5, "rate": 1e-4}]
    assert view["samples"] == [200]
    answer = client.get(f"/api/v1/training/{job}/samples/200.png")
    assert answer.content == picture_bytes() and answer.headers["content-type"] == "image/png"
    assert client.get(f"/api/v1/training/{job}/samples/7.png").status_code == 404
    assert client.get(f"/api/v1/training/{job}/samples/..%2f7.png").status_code in (404, 422)


def test_kinds_are_listed_with_a_schema_of_their_options(client: TestClient) -> None:
    kinds = {kind["name"]: kind for kind in client.get("/api/v1/training/kinds").json()}
    assert {"toy", "checkpoint", "lora", "vae"} <= set(kinds)
    assert kinds["toy"]["label"] == "Toy" and kinds["toy"]["defaults"]["optimiser.rate"] == 0.05
    assert kinds["toy"]["options"]["properties"]["width"]["default"] == 8
    schema = client.get("/openapi.json").json()
    assert {"TrainingRequest", "TrainingView", "Optimiser"} <= set(schema["components"]["schemas"])
    assert "/api/v1/training/{job_id}/go-on" in schema["paths"]


def test_what_is_wrong_is_one_sentence(client: TestClient, plain: dict[str, Any]) -> None:
    for body, status, sentence in (
        ({**plain, "kind": "tyo"}, 422, 'did you mean "toy"'),
        ([1], 422, "table of names and values"),
        ({**plain, "steps": "many"}, 422, "Steps"),
    ):
        answer = client.post("/api/v1/training", json=body)
        assert answer.status_code == status and sentence in answer.json()["error"]
    for method, path in (("GET", "absent"), ("POST", "absent/pause"), ("POST", "absent/go-on")):
        answer = client.request(method, f"/api/v1/training/{path}")
        assert answer.status_code == 404 and "no job absent" in answer.json()["error"]
