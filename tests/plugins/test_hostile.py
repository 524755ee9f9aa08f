"""With each of the hostile and broken extensions the program starts, makes its picture, and says what happened."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hostile_cases import CASES, FOLDER, Case, table
from plugin_app import PLAIN, App

from webui.engine.engine import Engine
from webui.engine.executor import WorkerProcess
from webui.engine.jobs import Job
from webui.engine.trial import unloadable
from webui.images.pixels import read_pixels
from webui.plugins.manager import SERVER_PACKAGES
from webui.request import GenerationRequest
from webui.result import Pixels

TABLE = Path(__file__).resolve().parents[2] / "extensions" / "HOSTILE.md"
ALONE = [case for case in CASES if not case.ends]


def names(case: Case) -> str:
    return case.name


def lacking(case: Case, problems: list[str]) -> list[str]:
    """The words that no sentence about the case has."""
    about = [one for one in problems if case.name in one]
    return [words for words in case.said if not any(words in one for one in about)]


def test_every_file_is_a_case_and_the_table_is_up_to_date() -> None:
    assert {f"{case.name}.py.txt" for case in CASES} == {path.name for path in FOLDER.iterdir()}
    assert len(CASES) >= 25
    assert TABLE.read_text("utf-8") == table()


@pytest.mark.parametrize("case", ALONE, ids=names)
def test_alone(case: Case, app: App, plain_pixels: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, as the command line has it: there is nobody to end and restart it."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the worker
    try:
        app.settings = replace(app.settings, extension_start_s=3.0, extension_call_s=3.0)
        app.install(f"{case.name}.py", case.code)
        done = app.make()
        assert np.array_equal(done.pixels, plain_pixels)
        assert done.recipe.request.prompt == PLAIN["prompt"]
        told = [str(report.data["sentence"]) for report in done.reports if report.kind == "problem"]
        assert lacking(case, [*told, *app.engine.problems()]) == []
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[tuple[Engine, Job]]:
    """A server's engine with a worker process and every extension of the corpus, and a job of three pictures."""
    app = App(tmp_path_factory.mktemp("together"), tiny_checkpoint.parents[1])
    for case in CASES:
        app.install(f"{case.name}.py", case.code)
    settings = replace(app.settings, extension_start_s=5.0, extension_call_s=3.0)
    settings.state_dir.mkdir(parents=True)
    worker = WorkerProcess(settings)
    engine = Engine.create(settings, worker, unloadable=unloadable(settings, SERVER_PACKAGES))
    engine.start()
    try:
        job = engine.submit(GenerationRequest.from_dict({**PLAIN, "batch_count": 3}))
        deadline = time.monotonic() + 500
        while not engine.job(job.id).state.is_over:
            assert time.monotonic() < deadline, "the job does not end"
            time.sleep(0.05)
        yield engine, engine.job(job.id)
    finally:
        engine.close()


def test_all_together_make_the_same_picture(together: tuple[Engine, Job], plain_pixels: Pixels) -> None:
    engine, job = together
    assert job.state.value == "done", job.error
    assert [made.index for made in job.outputs] == [0, 1, 2]
    pixels = read_pixels(engine.output_path(job.outputs[0].id).read_bytes())
    assert np.array_equal(pixels, plain_pixels)


@pytest.mark.parametrize("case", CASES, ids=names)
def test_among_all_the_others(case: Case, together: tuple[Engine, Job]) -> None:
    engine, _ = together
    if case.name == "deletes_itself":  # what the first process deletes, the others do not find
        return
    assert lacking(case, engine.problems()) == []
    health = {one["name"]: one for one in engine.extensions_health()}[case.name]
    if case.ends:
        assert health["state"] in ("left out", "switched off") and case.name in health["why"]
