"""A job with a script goes on after a restart where it was, and stops when it is interrupted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripts_loaded import put_scripts
from tiny_model import tiny_checkpoint, tiny_request, tiny_settings  # noqa: F401
from waiting import finished

from webui.engine.engine import Engine
from webui.engine.executor import Control, Order, Report
from webui.engine.runner import Runner
from webui.errors import RequestError
from webui.images.pixels import read_pixels
from webui.metadata.files import encode_picture, read_picture_texts
from webui.metadata.recipe import Recipe, request_of_one
from webui.metadata.verdict import Outcome
from webui.request import ScriptUse, Size, StartImage
from webui.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path) -> Settings:  # noqa: F811
    """With the bundled scripts in the extensions folder."""
    settings = tiny_settings(tmp_path, tiny_checkpoint)
    put_scripts(settings.extensions_dir)
    return settings


USE = ScriptUse(name="X/Y/Z plot", options={"x_axis": "Seed", "x_values": "1,2", "y_axis": "Steps", "y_values": "1,2"})


def test_pictures_that_are_done_are_not_made_again(engine: Engine, runner: Runner) -> None:
    request = replace(tiny_request(), script=USE)
    job = finished(engine, engine.submit(request))
    assert [output.index for output in sorted(job.outputs, key=lambda one: one.index)] == [-1, 0, 1, 2, 3]
    known = [output for output in job.outputs if output.index in (0, 2)]
    reports: list[Report] = []
    order = Order(
        job="again",
        kind="generate",
        request=job.request,
        done=tuple(output.index for output in known),
        paths=tuple(output.path for output in known),
    )
    runner.run(order, reports.append, Control())
    assert [report.data["index"] for report in reports if report.kind == "picture"] == [1, 3, -1]
    sheets = [engine.output_path(output.id) for output in job.outputs if output.index == -1]
    again = [report.data["path"] for report in reports if report.kind == "picture"][-1]
    assert (runner.settings.outputs_dir / again).read_bytes() == sheets[0].read_bytes()
    steps = [(report.data["step"], report.data["steps"]) for report in reports if report.kind == "progress"]
    assert all(step <= total for step, total in steps)


def test_an_interrupted_job_has_no_overview(runner: Runner) -> None:
    control, reports = Control(), []

    def tell(report: Report) -> None:
        reports.append(report)
        if report.kind == "picture":
            control.interrupted.set()

    order = Order(job="1", kind="generate", request=replace(tiny_request(), script=USE).to_dict())
    runner.run(order, tell, control)
    assert [report.data["index"] for report in reports if report.kind == "picture"] == [0]
    assert reports[-1].kind == "interrupted"


def test_an_upscale_by_tiles_goes_on_where_it_was(engine: Engine, runner: Runner) -> None:
    before = np.asarray(Image.effect_noise((64, 64), 50).convert("RGB"))
    digest = engine.put_input(encode_picture(before, ".png", {}))
    size = Size(width=64, height=64)
    start = StartImage(image=digest, denoising_strength=0.0)
    options = {"upscaler": "Lanczos", "scale": 1.5, "overlap": 32}
    request = replace(tiny_request(), size=size, start=start, script=ScriptUse(name="SD upscale", options=options))
    job = finished(engine, engine.submit(request))
    outputs = {output.index: output for output in job.outputs}
    assert sorted(outputs) == [-1, 0, 1, 2, 3]
    assert (outputs[-1].width, outputs[-1].height) == (96, 96)
    assert "SD upscale overlap: 32, SD upscale upscaler: Lanczos" in outputs[-1].infotext
    recipe = Recipe.from_json(read_picture_texts(engine.output_path(outputs[3].id).read_bytes())["recipe"])
    tile = request_of_one(recipe).start
    assert tile is not None
    enlarged = np.asarray(Image.fromarray(before).resize((96, 96), Image.Resampling.LANCZOS))
    assert np.array_equal(read_pixels(engine.input_path(tile.image).read_bytes()), enlarged[32:, 32:])

    reports: list[Report] = []
    order = Order(
        job="again", kind="generate", request=job.request, done=(0, 1), paths=(outputs[0].path, outputs[1].path)
    )
    runner.run(order, reports.append, Control())
    made = [report.data for report in reports if report.kind == "picture"]
    assert [one["index"] for one in made] == [2, 3, -1]
    whole = engine.output_path(outputs[-1].id).read_bytes()
    assert (runner.settings.outputs_dir / made[-1]["path"]).read_bytes() == whole


def test_an_upscaler_that_is_not_here_is_refused_when_it_is_queued(engine: Engine) -> None:
    digest = engine.put_input(encode_picture(np.zeros((64, 64, 3), np.uint8), ".png", {}))
    use = ScriptUse(name="SD upscale", options={"upscaler": "ESRGANN", "overlap": 0})
    request = replace(tiny_request(), size=Size(width=64, height=64), start=StartImage(image=digest), script=use)
    with pytest.raises(RequestError, match="upscaler"):
        engine.submit(request)
    use = ScriptUse(name="SD upscale", options={"upscaler": "Latent", "overlap": 0})
    with pytest.raises(RequestError, match="enlarges latents"):
        engine.submit(replace(request, script=use))


def test_a_loopback_begins_with_the_picture_before_and_goes_on_where_it_was(engine: Engine, runner: Runner) -> None:
    digest = engine.put_input(encode_picture(np.full((64, 64, 3), 90, np.uint8), ".png", {}))
    use = ScriptUse(name="Loopback", options={"loops": 3, "final_strength": 0.9})
    request = replace(tiny_request(), size=Size(width=64, height=64), start=StartImage(image=digest), script=use)
    job = finished(engine, engine.submit(request))
    outputs = {output.index: output for output in job.outputs}
    assert sorted(outputs) == [-1, 0, 1, 2]
    files = [engine.output_path(outputs[index].id).read_bytes() for index in range(3)]
    for before, after in ((files[0], files[1]), (files[1], files[2])):
        start = request_of_one(Recipe.from_json(read_picture_texts(after)["recipe"])).start
        assert start is not None and engine.input_path(start.image).read_bytes() == before

    reports: list[Report] = []
    order = Order(job="again", kind="generate", request=job.request, done=(0,), paths=(outputs[0].path,))
    runner.run(order, reports.append, Control())
    made = [report.data for report in reports if report.kind == "picture"]
    assert [one["index"] for one in made] == [1, 2, -1]
    last = read_pixels((runner.settings.outputs_dir / made[1]["path"]).read_bytes())
    assert np.array_equal(last, read_pixels(files[2]))


@pytest.mark.parametrize(("name", "stages"), [("Outpainting mk2", 4), ("Poor man's outpainting", 6)])
def test_outpainting_goes_on_where_it_was_and_its_last_picture_can_be_made_again(
    engine: Engine, runner: Runner, name: str, stages: int
) -> None:
    before = np.asarray(Image.effect_noise((64, 72), 50).convert("RGB"))
    digest = engine.put_input(encode_picture(before, ".png", {}))
    use = ScriptUse(name=name, options={"pixels": 64, "mask_blur": 1})
    request = replace(tiny_request(), size=Size(width=128, height=128), start=StartImage(image=digest), script=use)
    job = finished(engine, engine.submit(request))
    outputs = {output.index: output for output in job.outputs}
    assert sorted(outputs) == list(range(stages)) and job.progress.pictures == stages
    data = engine.output_path(outputs[stages - 1].id).read_bytes()
    pixels, recipe = read_pixels(data), Recipe.from_json(read_picture_texts(data)["recipe"])
    assert pixels.shape == (256, 192, 3)
    kept = np.s_[92 + 16 : 92 + 72 - 16, 64 + 16 : 128 - 16]
    assert np.array_equal(pixels[kept], before[16:-16, 16:-16]), "beyond the blur's reach the picture is as it was"
    start = request_of_one(recipe).start
    assert start is not None and start.mask is not None and start.mask.latent is not None
    assert set(recipe.inputs) == {start.image, start.mask.image, start.mask.latent}
    began = read_pixels(engine.input_path(start.image).read_bytes())
    assert began.shape == pixels.shape and np.array_equal(began[kept], before[16:-16, 16:-16])
    verdict = runner.reproduce(data, lambda _: None, Control())
    assert verdict.outcome is Outcome.BIT_EXACT and not verdict.reasons

    reports: list[Report] = []
    known = (outputs[0], outputs[1])
    order = Order(
        job="again", kind="generate", request=job.request, done=(0, 1), paths=tuple(one.path for one in known)
    )
    runner.run(order, reports.append, Control())
    made = [report.data for report in reports if report.kind == "picture"]
    assert [one["index"] for one in made] == list(range(2, stages))
    assert np.array_equal(read_pixels((runner.settings.outputs_dir / made[-1]["path"]).read_bytes()), pixels)
