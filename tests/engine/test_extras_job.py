"""Extras as jobs: what is saved, what is proved again, what survives."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.torch import save_file
from tiny_model import picture_bytes, tiny_request
from waiting import finished

from webui.api.app import build_app
from webui.engine.engine import Engine
from webui.engine.executor import Control, Order, Report
from webui.engine.extras import ExtrasRecipe, is_extras
from webui.engine.jobs import Job, JobState
from webui.engine.runner import Runner
from webui.errors import MetadataError, NotFoundError, RequestError
from webui.extras import Enlargement, ExtrasRequest
from webui.images.pixels import read_pixels
from webui.metadata.files import encode_picture, read_picture_texts
from webui.networks.restoration import spandrel
from webui.settings import Settings

TWICE = Enlargement(upscaler="Lanczos", by=2)


def extras(engine: Engine, *images: bytes, upscale: Enlargement = TWICE, **changes: Any) -> Job:
    digests = tuple(engine.put_input(image) for image in images)
    return finished(engine, engine.submit_extras(ExtrasRequest(images=digests, upscale=upscale, **changes)))


def files(engine: Engine, job: Job) -> list[bytes]:
    assert job.state is JobState.DONE, job.error
    return [engine.output_path(output.id).read_bytes() for output in job.outputs]


@pytest.fixture
def esrgan(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A random ESRGAN of 8 filters and 1 block in a models folder of this test alone."""
    spandrel()
    from spandrel.architectures.ESRGAN import ESRGAN

    folder = tmp_path / "own models"
    (folder / "ESRGAN").mkdir(parents=True)
    (folder / "Stable-diffusion").symlink_to(settings.models_dir / "Stable-diffusion")
    object.__setattr__(settings, "models_dir", folder)  # before the runner and the engine are made of it
    torch.manual_seed(5)
    file = folder / "ESRGAN" / "2x-Small.safetensors"
    save_file(ESRGAN(num_filters=8, num_blocks=1, scale=2).state_dict(), file)
    return file


def test_a_picture_is_enlarged_saved_and_tells_it(engine: Engine, settings: Settings) -> None:
    made = finished(engine, engine.submit(tiny_request()))
    (source,) = files(engine, made)
    job = extras(engine, source, names=("my cat.final.png",))
    (file,) = files(engine, job)
    expected = Image.fromarray(read_pixels(source)).resize((128, 128), Image.Resampling.LANCZOS)
    assert np.array_equal(read_pixels(file), np.array(expected))
    texts = read_picture_texts(file)
    assert texts["extras"] == texts["postprocessing"] == "Postprocess upscale by: 2, Postprocess upscaler: Lanczos"
    assert texts["parameters"] == read_picture_texts(source)["parameters"]
    assert is_extras(texts["recipe"]) and not is_extras(read_picture_texts(source)["recipe"])
    (output,) = job.outputs
    assert Path(output.path).parts[0] == "extras-images" and Path(output.path).name == "00001-my cat.final.png"
    assert (output.width, output.height, output.seed) == (128, 128, made.outputs[0].seed)
    assert output.infotext.endswith("Postprocess upscaler: Lanczos")
    assert engine.read_infotext(file).request.prompt == tiny_request().prompt


def test_a_batch_is_one_job(engine: Engine) -> None:
    job = extras(engine, picture_bytes(32, 48, 1), picture_bytes(16, 16, 2))
    assert [read_pixels(file).shape for file in files(engine, job)] == [(96, 64, 3), (32, 32, 3)]
    assert (job.progress.pictures, [output.index for output in job.outputs]) == (2, [0, 1])


def test_pictures_that_are_done_are_not_done_again(runner: Runner) -> None:
    digests = [runner.inputs.put(picture_bytes(16, 16, seed)) for seed in range(3)]
    request = ExtrasRequest(images=tuple(digests), upscale=TWICE).to_dict()
    reports: list[Report] = []
    runner.run(Order(job="1", kind="extras", request=request, done=(0, 2)), reports.append, Control())
    assert [report.data["index"] for report in reports if report.kind == "picture"] == [1]


def test_an_interrupted_job_keeps_what_it_made(runner: Runner) -> None:
    digests = [runner.inputs.put(picture_bytes(16, 16, seed)) for seed in range(3)]
    control, reports = Control(), []

    def tell(report: Report) -> None:
        reports.append(report)
        if report.kind == "picture":
            control.interrupted.set()

    request = ExtrasRequest(images=tuple(digests), upscale=TWICE).to_dict()
    runner.run(Order(job="1", kind="extras", request=request), tell, control)
    assert [report.kind for report in reports].count("picture") == 1 and reports[-1].kind == "interrupted"


def test_with_a_network_and_proved_again(esrgan: Path, engine: Engine) -> None:
    source = picture_bytes(40, 24)
    job = extras(engine, source, upscale=Enlargement(upscaler="2x-Small", by=3))
    (file,) = files(engine, job)
    assert read_pixels(file).shape == (72, 120, 3)
    recipe = ExtrasRecipe.from_json(read_picture_texts(file)["recipe"])
    assert [(model.role, model.name) for model in recipe.models] == [("upscaler", "2x-Small")]
    again = finished(engine, engine.reproduce(file, "picture.png"))
    assert again.verdict is not None and again.verdict["outcome"] == "bit-exact"
    state = {name: tensor + 0.01 for name, tensor in _tensors(esrgan).items()}
    save_file(state, esrgan)
    other = finished(engine, engine.reproduce(file, "picture.png")).verdict
    assert other is not None and other["outcome"] != "bit-exact"
    assert any("2x-Small" in reason and "another" in reason for reason in other["reasons"])
    esrgan.unlink()
    gone = finished(engine, engine.reproduce(file, "picture.png")).verdict
    assert gone is not None and gone["outcome"] == "cannot run" and "2x-Small" in gone["reasons"][0]


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def test_a_file_that_was_changed_is_no_proof(engine: Engine) -> None:
    (file,) = files(engine, extras(engine, picture_bytes(16, 16)))
    pixels = read_pixels(file).copy()
    pixels[0, 0] ^= 255
    changed = encode_picture(pixels, ".png", read_picture_texts(file))
    verdict = finished(engine, engine.reproduce(changed, "changed.png")).verdict
    assert verdict is not None and verdict["outcome"] != "bit-exact"
    assert any("not the ones its recipe recorded" in reason for reason in verdict["reasons"])


def test_the_picture_that_went_in_must_be_stored(engine: Engine, settings: Settings) -> None:
    (file,) = files(engine, extras(engine, picture_bytes(16, 16)))
    for kept in (settings.state_dir / "inputs").iterdir():
        kept.unlink()
    verdict = finished(engine, engine.reproduce(file, "picture.png")).verdict
    assert verdict is not None and verdict["outcome"] == "cannot run" and "went in" in verdict["reasons"][0]
    with pytest.raises(MetadataError, match="did not tell"):
        engine.read_infotext(file)


@pytest.mark.parametrize(
    "damage", [{"format": 3}, {"request": {}}, {"models": [{}]}, {"environment": None}, {"models": None}]
)
def test_a_damaged_recipe_is_one_sentence(engine: Engine, damage: dict[str, Any]) -> None:
    (file,) = files(engine, extras(engine, picture_bytes(16, 16)))
    texts = read_picture_texts(file)
    texts["recipe"] = json.dumps({**json.loads(texts["recipe"]), **damage})
    with pytest.raises(MetadataError, match="damaged"):
        engine.reproduce(encode_picture(read_pixels(file), ".png", texts), "x.png")


def test_what_is_not_here_is_said_before_it_is_queued(engine: Engine) -> None:
    with pytest.raises(NotFoundError, match="not stored here"):
        engine.submit_extras(ExtrasRequest(images=("0" * 64,), upscale=TWICE))
    with pytest.raises(RequestError, match='no upscaler named "R-ESRGAN 9x'):
        extras(engine, picture_bytes(16, 16), upscale=Enlargement(upscaler="R-ESRGAN 9x"))


def test_without_the_model_a_sentence_says_what_to_put_where(engine: Engine, settings: Settings) -> None:
    job = extras(engine, picture_bytes(16, 16), codeformer_visibility=1.0)
    assert job.state is JobState.FAILED
    assert job.error == (
        f"CodeFormer needs a model file: put codeformer.pth into {settings.models_dir / 'Codeformer'}, then press "
        "Refresh."
    )


def test_over_rest(engine: Engine) -> None:
    client = TestClient(build_app(engine), base_url="http://127.0.0.1")
    names = [one["name"] for one in client.get("/api/v1/upscalers?refresh=true").json()]
    assert names[0] == "Latent" and "Lanczos" in names
    assert {"name": "GFPGAN"} in client.get("/api/v1/face-restorers").json()
    picture = client.post("/api/v1/inputs", content=picture_bytes(16, 24)).json()["id"]
    body = {"images": [picture], "upscale": {"upscaler": "lanczos", "to": {"width": 64, "height": 64, "crop": False}}}
    answer = client.post("/api/v1/extras", json=body)
    assert answer.status_code == 201 and answer.json()["kind"] == "extras"
    assert answer.json()["request"]["upscale"]["upscaler"] == "Lanczos"
    job = finished(engine, engine.job(answer.json()["id"]))
    saved = client.get(f"/api/v1/pictures/{job.outputs[0].id}").content
    assert Image.open(io.BytesIO(saved)).size == (64, 96)
    wrong = client.post("/api/v1/extras", json={"images": [picture], "upscale": {"upscaler": "Latent"}})
    assert wrong.status_code == 422 and "latents" in wrong.json()["error"]
    assert "ExtrasRequest" in client.get("/openapi.json").json()["components"]["schemas"]
