"""Preprocessors with a model file, from the page's list to the recipe and back, with the extension as users have it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from controlnet_bench import tiny
from controlnet_parts import FOLDER, part
from fastapi.testclient import TestClient
from network_preprocessor_files import save
from safetensors.torch import save_file
from test_controlnet_numbers import control_weights
from tiny_model import picture_bytes, tiny_settings

from webui.api.app import build_app
from webui.checkpoints.formats import BUILT_IN
from webui.engine.engine import Engine
from webui.engine.executor import Control, Report
from webui.engine.inprocess import InProcess
from webui.engine.runner import Runner
from webui.errors import RequestError
from webui.images.pixels import read_pixels
from webui.metadata.files import read_picture_texts
from webui.metadata.recipe import Recipe
from webui.metadata.verdict import Outcome
from webui.request import GenerationRequest, ModuleUse, Sampling, Size

HED = "ControlNetHED.pth"
SENTENCE = "needs the file ControlNetHED.pth; put it into models/ControlNetPreprocessor and press Refresh."


@pytest.fixture
def runner(tmp_path: Path, tiny_checkpoint: Path) -> Runner:
    settings = replace(tiny_settings(tmp_path, tiny_checkpoint), extensions_dir=FOLDER)
    (settings.models_dir / "ControlNet").mkdir()
    save_file(control_weights(tiny(tiny_checkpoint).unet), settings.models_dir / "ControlNet" / "edges.safetensors")
    return Runner.start(settings)


@pytest.fixture
def engine(runner: Runner) -> Iterator[Engine]:
    engine = Engine.create(runner.settings, InProcess(runner))
    engine.start()
    yield engine
    engine.close()


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    with TestClient(build_app(engine), raise_server_exceptions=False) as client:
        yield client


def folder(runner: Runner) -> Path:
    """Where Forge puts the file: a sub-folder of a kind."""
    return runner.settings.models_dir / "ControlNetPreprocessor" / "hed"


def request(image: str, **options: Any) -> GenerationRequest:
    unit = {"image": image, "module": "softedge_hed", "model": "edges", "processor_res": 64, **options}
    return GenerationRequest(
        prompt="a cat",
        seed=3,
        size=Size(width=64, height=64),
        sampling=Sampling(steps=2),
        modules=(ModuleUse(name="ControlNet", options=unit),),
    )


def expected(runner: Runner, data: bytes) -> np.ndarray:
    hed = part("hed")
    network = hed.load(BUILT_IN.open(folder(runner) / HED), runner.compute.device)
    levels = (hed.edges(network, read_pixels(data)) * 255).clip(0, 255)
    return np.repeat(levels.astype(np.uint8)[:, :, None], 3, axis=2)


def test_one_is_listed_only_while_its_file_is_there(client: TestClient, runner: Runner) -> None:
    def listed() -> tuple[set[str], set[str], set[str]]:
        client.get("/api/v1/modules?refresh=true")
        plain = {one["name"] for one in client.get("/api/v1/preprocessors").json()}
        inner = set(client.get("/controlnet/module_list").json()["module_list"])
        types = client.get("/controlnet/control_types").json()["control_types"]
        return plain, inner, set(types["SoftEdge"]["module_list"])

    before = listed()
    assert "softedge_hed" not in before[0] and "hed" not in before[1] and before[2] == {"none"}
    assert "canny" in before[0]
    path = save(folder(runner), HED)
    after = listed()
    assert after[0] - before[0] == {"scribble_hed", "softedge_hed", "softedge_hedsafe"}
    assert after[1] - before[1] == {"scribble_hed", "hed", "hed_safe"}
    assert after[2] == {"none", "softedge_hed", "softedge_hedsafe"}
    path.unlink()
    assert listed() == before


def test_the_panels_list_follows(engine: Engine, runner: Runner) -> None:
    from webui.option_boxes import Kind, all_boxes

    box = next(one for one in all_boxes(part("unit").Unit) if one.kind is Kind.PREPROCESSOR)
    assert "softedge_hed" not in (engine.listed(box) or [])
    save(folder(runner), HED)
    engine.refresh()
    assert "softedge_hed" in (engine.listed(box) or [])


def test_without_its_file_one_is_refused_with_the_way_to_it(engine: Engine, client: TestClient) -> None:
    image = engine.put_input(picture_bytes(128, 64))
    with pytest.raises(RequestError, match=f"softedge_hed {SENTENCE}"):
        engine.submit(request(image))
    with pytest.raises(RequestError, match=SENTENCE):
        engine.control_picture("ControlNet", {"image": image, "module": "hed"})
    for path, body in (
        ("/api/v1/preprocessors/softedge_hed", {"image": image}),
        ("/controlnet/detect", {"controlnet_module": "hed", "controlnet_input_images": ["AA=="]}),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == 422 and SENTENCE in answer.text


def test_the_recipe_names_the_file_and_reproduces(runner: Runner) -> None:
    path = save(folder(runner), HED)
    image = runner.inputs.put(picture_bytes(128, 64))
    (made,) = runner.generate(request(image, module="hed"), lambda report: None, Control())
    texts = read_picture_texts(made.read_bytes())
    files = {(file.role, file.name): file.sha256 for file in Recipe.from_json(texts["recipe"]).models}
    (entry,) = runner.library.entries("preprocessor")
    assert files["preprocessor", "hed/ControlNetHED"] == runner.library.sha256(entry)
    assert "Module: softedge_hed" in texts["parameters"]

    path.rename(path.with_name("another_name.pth"))  # the recipe's SHA-256 finds it
    verdict = runner.reproduce(made.read_bytes(), lambda report: None, Control())
    assert verdict.outcome is Outcome.BIT_EXACT, verdict

    path.with_name("another_name.pth").unlink()
    save(folder(runner), HED, seed=8)
    verdict = runner.reproduce(made.read_bytes(), lambda report: None, Control())
    assert verdict.outcome is Outcome.CANNOT_RUN
    assert 'preprocessor "hed/ControlNetHED" with SHA-256' in " ".join(verdict.reasons)


def test_another_file_makes_another_picture(runner: Runner) -> None:
    image = runner.inputs.put(picture_bytes(128, 64))
    pictures = []
    for seed in (7, 8, 7):
        save(folder(runner), HED, seed=seed)
        (made,) = runner.generate(request(image), lambda report: None, Control())
        pictures.append(read_pixels(made.read_bytes()).tobytes())
    assert pictures[0] == pictures[2] != pictures[1]


def test_the_preview_comes_from_the_worker(engine: Engine, client: TestClient, runner: Runner) -> None:
    save(folder(runner), HED)
    engine.refresh()
    data = picture_bytes(128, 64)
    image = engine.put_input(data)
    options = {"image": image, "module": "softedge_hed", "processor_res": 64}
    answer = client.post("/api/v1/modules/preview", json={"name": "ControlNet", "options": options})
    assert answer.status_code == 200, answer.text
    assert np.array_equal(read_pixels(answer.content), expected(runner, data))
    assert engine.jobs() == []  # no job is left of it


def test_programs_get_it_from_the_worker(engine: Engine, client: TestClient, runner: Runner) -> None:
    save(folder(runner), HED)
    engine.refresh()
    data = picture_bytes(128, 64)
    plain = client.post("/api/v1/preprocessors/softedge_hed", json={"image": engine.put_input(data)})
    assert np.array_equal(read_pixels(plain.content), expected(runner, data))
    body = {
        "controlnet_module": "hed",
        "controlnet_processor_res": 64,
        "controlnet_input_images": [base64.b64encode(data).decode()],
    }
    (detected,) = client.post("/controlnet/detect", json=body).json()["images"]
    assert np.array_equal(read_pixels(base64.b64decode(detected)), expected(runner, data))
    assert list((runner.settings.state_dir / "reproductions").iterdir()) == []


def test_a_damaged_file_is_told_of(engine: Engine, client: TestClient, runner: Runner) -> None:
    folder(runner).mkdir(parents=True)
    (folder(runner) / HED).write_bytes(b"no model")
    engine.refresh()
    image = engine.put_input(picture_bytes(128, 64))
    answer = client.post("/api/v1/preprocessors/softedge_hed", json={"image": image})
    assert answer.status_code == 422 and HED in answer.text


def test_a_network_that_is_loaded_is_used_again(runner: Runner) -> None:
    save(folder(runner), HED)
    runner.library.refresh()
    entries = runner.library.entries("preprocessor")
    pixels = read_pixels(picture_bytes(128, 64))

    def file(kind: str, name: str) -> Path:
        return runner.library.find(name, kind).path

    runner.preprocessing.run("softedge_hed", pixels, {}, entries, file)
    kept = runner.preprocessing._network
    runner.preprocessing.run("scribble_hed", pixels, {}, entries, file)
    runner.preprocessing.run("invert (from white bg & black line)", pixels, {}, entries, file)
    assert runner.preprocessing._network is kept


def test_reports_of_a_picture_are_none_of_an_errand(runner: Runner) -> None:
    """What the worker says of a control picture: the picture, and that it is done."""
    from webui.engine.errands import KIND
    from webui.engine.executor import Order

    image = runner.inputs.put(picture_bytes(128, 64))
    told: list[Report] = []
    wanted = {"module": "ControlNet", "options": {"image": image, "module": "canny"}}
    runner.run(Order(job="x", kind=KIND, request=wanted), told.append, Control())
    assert [report.kind for report in told if report.kind != "extensions"] == [KIND, "done"]
