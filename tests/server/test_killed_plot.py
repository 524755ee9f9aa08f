"""A plot whose server is killed in the middle: the next server goes on, and makes no picture twice."""

from __future__ import annotations

import time
from pathlib import Path

from scripts_loaded import put_scripts
from server.running import start
from tiny_model import tiny_checkpoint  # noqa: F401

from webui.metadata.files import read_picture_texts
from webui.metadata.recipe import Recipe, request_of_one

PLOT = {"x_axis": "Seed", "x_values": "1,2,3", "y_axis": "Steps", "y_values": "40,60", "pictures": True}


def test_a_killed_plot_goes_on_and_makes_no_picture_twice(tmp_path: Path, tiny_checkpoint: Path) -> None:  # noqa: F811
    put_scripts(tmp_path / "extensions")
    body = {"prompt": "a", "size": {"width": 64, "height": 64}, "script": {"name": "X/Y/Z plot", "options": PLOT}}
    first = start(tmp_path, tiny_checkpoint.parent.parent)
    try:
        with first.client as client:
            answer = client.post("/api/v1/jobs", json=body)
            assert answer.is_success, answer.text
            job = answer.json()["id"]
            while len(client.get(f"/api/v1/jobs/{job}").json()["outputs"]) < 2:
                time.sleep(0.02)
    finally:
        first.kill()
    outputs = tmp_path / "outputs"
    kept = {path: path.stat().st_mtime_ns for path in outputs.rglob("*.png")}
    assert 2 <= len(kept) < 7, "killed in the middle"
    second = start(tmp_path, tiny_checkpoint.parent.parent)
    try:
        with second.client as client:
            while (done := client.get(f"/api/v1/jobs/{job}").json())["state"] in ("queued", "running"):
                time.sleep(0.05)
    finally:
        second.kill()
    assert done["state"] == "done", done["error"]
    assert sorted(output["index"] for output in done["outputs"]) == [-1, 0, 1, 2, 3, 4, 5]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was there is as it was"
    assert len(list(outputs.rglob("*.png"))) == 7, "six pictures and the sheet"
    made = {output["index"]: (outputs / output["path"]).read_bytes() for output in done["outputs"]}
    told = [request_of_one(Recipe.from_json(read_picture_texts(made[index])["recipe"])) for index in range(6)]
    assert [(one.seed, one.sampling.steps) for one in told] == [(s, n) for n in (40, 60) for s in (1, 2, 3)]
    assert "X Type: Seed" in read_picture_texts(made[-1])["parameters"]
