from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from webui.engine.engine import Engine
from webui.engine.options import DEFAULTS, Options
from webui.errors import RequestError


def test_a_change_is_kept_in_a_flat_file_and_unknown_keys_stay_in_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"an extension's": [1], "CLIP_stop_at_last_layers": 2, "randn_source": "TPU"}))
    options = Options(path)
    assert options.snapshot()["CLIP_stop_at_last_layers"] == 2
    assert options.snapshot()["randn_source"] == "GPU"  # what cannot be is as if it were not there
    options.change({"jpeg_quality": 90, "nobody knows": 1, "outdir_samples": "/", "sd_checkpoint_hash": "x"})
    saved = json.loads(path.read_text())
    assert saved == {"an extension's": [1], "CLIP_stop_at_last_layers": 2, "jpeg_quality": 90}
    assert Options(path).snapshot()["jpeg_quality"] == 90


def test_a_wrong_value_changes_nothing(tmp_path: Path) -> None:
    options = Options(tmp_path / "config.json")
    for wrong in ({"randn_source": "TPU"}, {"CLIP_stop_at_last_layers": 99}, {"tiling": "yes"}, {"s_churn": None}):
        with pytest.raises(RequestError):
            options.change({"jpeg_quality": 90, **wrong})
    assert options.snapshot() == DEFAULTS and not options.path.exists()


def test_a_snapshot_cannot_be_changed_and_does_not_change(tmp_path: Path) -> None:
    options = Options(tmp_path / "config.json")
    snapshot = options.snapshot({"s_churn": 1, "unknown": 1})
    options.change({"s_churn": 2.0})
    assert snapshot["s_churn"] == 1.0 and "unknown" not in snapshot
    with pytest.raises(TypeError):
        snapshot["s_churn"] = 3  # type: ignore[index]


@given(
    st.dictionaries(
        st.sampled_from(sorted(DEFAULTS)), st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists)
    )
)
def test_any_overrides_are_taken_or_refused_in_a_sentence(overrides: dict[str, object]) -> None:
    try:
        snapshot = Options(Path("nowhere/config.json")).snapshot(overrides)
    except RequestError as error:
        assert str(error)
    else:
        assert snapshot.keys() == DEFAULTS.keys()


@pytest.mark.usefixtures("options")
def test_clients_cannot_lift_what_guards_the_computer(client: TestClient, engine: Engine) -> None:
    body = {"api_forbid_local_requests": False, "api_enable_requests": False, "jpeg_quality": 70}
    assert client.post("/sdapi/v1/options", json=body).status_code == 200
    told = client.get("/sdapi/v1/options").json()
    assert told["api_forbid_local_requests"] and told["api_enable_requests"] and told["jpeg_quality"] == 70
    assert engine.options.snapshot(body)["api_forbid_local_requests"]
    engine.options.change({"api_forbid_local_requests": False})  # a person, on the page
    assert not engine.options.snapshot()["api_forbid_local_requests"]


@pytest.mark.usefixtures("options")
def test_clients_read_and_write_them(client: TestClient) -> None:
    assert client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 2, "nobody": 1}).json() is None
    told = client.get("/sdapi/v1/options").json()
    assert told["CLIP_stop_at_last_layers"] == 2 and told["sd_model_checkpoint"].startswith("tiny.safetensors")
    refused = client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "no such"})
    assert refused.status_code == 500 and refused.json()["errors"] == "Unknown checkpoint: no such"
    assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "tiny"}).status_code == 200
    assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"].startswith("tiny.safetensors")


@pytest.mark.usefixtures("options")
def test_all_that_was_told_can_be_set_again(client: TestClient) -> None:
    told = client.get("/sdapi/v1/options").json()
    assert client.post("/sdapi/v1/options", json=told).status_code == 200
    assert client.get("/sdapi/v1/options").json() == told


@pytest.mark.usefixtures("options")
def test_a_chosen_checkpoint_that_is_gone(client: TestClient, engine: Engine) -> None:
    engine.options.change({"sd_model_checkpoint": "gone.safetensors"})
    assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"].startswith("tiny")
    refused = client.post("/sdapi/v1/txt2img", json={"steps": 1, "width": 64, "height": 64})
    assert refused.status_code == 500 and refused.json()["detail"] == "Unknown checkpoint: gone.safetensors"
