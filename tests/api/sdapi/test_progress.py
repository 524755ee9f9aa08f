from __future__ import annotations

import base64
import io
import threading
import time
from typing import Any

from fastapi.testclient import TestClient
from PIL import Image

from webui.engine.engine import Engine

LONG = {"prompt": "a red square", "steps": 900, "width": 64, "height": 64, "force_task_id": "task(mine)"}


def until(condition: Any, seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def test_a_job_is_followed_with_previews_and_stopped(client: TestClient, engine: Engine) -> None:
    idle = client.get("/sdapi/v1/progress").json()
    assert idle["progress"] == 0 and idle["current_image"] is None and idle["state"]["job"] == ""
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(client.post("/sdapi/v1/txt2img", json=LONG)))
    asking.start()

    def with_preview() -> Any:
        found = client.get("/sdapi/v1/progress").json()
        return found if found["current_image"] else None

    shown = until(with_preview)
    assert 0 < shown["progress"] < 1 and shown["state"]["job"] == "task(mine)"
    assert shown["state"]["sampling_steps"] == 900 and shown["state"]["job_count"] == 1
    with Image.open(io.BytesIO(base64.b64decode(shown["current_image"]))) as preview:
        assert preview.format == "PNG"
    assert client.get("/sdapi/v1/progress", params={"skip_current_image": True}).json()["current_image"] is None
    task = client.post("/internal/progress", json={"id_task": "task(mine)"}).json()
    assert task["active"] and not task["completed"] and task["live_preview"].startswith("data:image/")
    seen = client.post(
        "/internal/progress", json={"id_task": "task(mine)", "id_live_preview": task["id_live_preview"] + 10**6}
    ).json()
    assert seen["active"]
    assert client.post("/sdapi/v1/interrupt").json() == {}
    asking.join(timeout=90)
    assert answers[0].status_code == 200 and answers[0].json()["images"] == []
    done = client.post("/internal/progress", json={"id_task": "task(mine)"}).json()
    assert done["completed"] and not done["active"]
    assert client.get("/internal/pending-tasks").json() == {"size": 0, "tasks": []}


def test_skip_leaves_one_picture_out(client: TestClient) -> None:
    answers: list[Any] = []
    body = {**LONG, "n_iter": 2, "steps": 300, "force_task_id": None}
    asking = threading.Thread(target=lambda: answers.append(client.post("/sdapi/v1/txt2img", json=body)))
    asking.start()
    until(lambda: client.get("/sdapi/v1/progress").json()["state"]["sampling_step"] > 0)
    assert client.post("/sdapi/v1/skip").json() is None
    asking.join(timeout=120)
    assert len(answers[0].json()["images"]) == 1


def test_a_task_that_nobody_knows(client: TestClient) -> None:
    answer = client.post("/internal/progress", json={"id_task": "task(nobody)"}).json()
    assert not answer["active"] and not answer["queued"] and not answer["completed"]
