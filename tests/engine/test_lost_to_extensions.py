"""A worker that an extension ends, or does not come back to, is started again without it, and the job goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_model import tiny_request, tiny_settings
from waiting import finished, wait_for

from webui.engine.engine import Engine
from webui.engine.executor import WorkerProcess
from webui.engine.jobs import Job, JobState

HOOK = "import os, re, sys, time\nfrom webui.hooks import hookimpl\n@hookimpl\n"
EXITS = HOOK + "def rewrite_picture(index):\n    if index == 1:\n        os._exit(3)\n"
STUCK = HOOK + "def before_job():\n    sum(range(10 ** 15))\n"
AT_IMPORT = "import os, sys\nif 'webui.engine.worker' in sys.orig_argv:\n    os._exit(4)\n"
SAMPLER = """
import os
from webui.hooks import hookimpl
from webui.samplers import Sampler, Step

def formula(denoise, x, sigmas, noise, *, eta):
    yield Step(x, x, 1.0)

@hookimpl
def register_samplers():
    return [Sampler(name="Mine", integrate=formula)]

@hookimpl
def before_job(request):
    os._exit(5)
"""


@pytest.fixture
def running(tmp_path: Path, tiny_checkpoint: Path) -> Iterator[Callable[..., Engine]]:
    engines = []

    def start(**extensions: str) -> Engine:
        settings = replace(tiny_settings(tmp_path, tiny_checkpoint), extension_call_s=1.0)
        settings.extensions_dir.mkdir()
        for name, code in extensions.items():
            (settings.extensions_dir / f"{name}.py").write_text(code, "utf-8")
        engine = Engine.create(settings, WorkerProcess(settings))
        engines.append(engine)
        engine.start()
        return engine

    yield start
    for engine in engines:
        engine.close()


def health(engine: Engine, name: str) -> dict[str, object]:
    return next(one for one in engine.extensions_health() if one["name"] == name)


def done(engine: Engine, job: Job) -> Job:
    over = finished(engine, job)
    assert over.state is JobState.DONE, over.error
    return over


def test_a_hook_that_ends_the_process(running: Callable[..., Engine]) -> None:
    engine = running(exits=EXITS, good=HOOK + "def write_infotext():\n    return {'Good': 'yes'}\n")
    job = done(engine, engine.submit(tiny_request(batch_count=3)))
    assert [made.index for made in job.outputs] == [0, 1, 2]
    assert all("Good: yes" in made.infotext for made in job.outputs)
    sentence = (
        "The extension exits is switched off until the next start: the process that computes pictures "
        "ended with code 3 within its rewrite_picture (exits.py, line 3)."
    )
    assert sentence in engine.problems()
    assert health(engine, "exits")["state"] == "switched off" and health(engine, "exits")["why"] == sentence
    assert health(engine, "good")["hooks"]["worker"]["write_infotext"]["calls"] == 2  # type: ignore[index]
    done(engine, engine.submit(tiny_request(batch_count=2)))


def test_a_hook_that_never_comes_back_and_holds_the_interpreter(running: Callable[..., Engine]) -> None:
    engine = running(stuck=STUCK)
    done(engine, engine.submit(tiny_request()))
    (sentence,) = [one for one in engine.problems() if "stuck" in one]
    assert "did not come back within its before_job (stuck.py, line 3)" in sentence


def test_an_import_that_ends_the_worker(running: Callable[..., Engine]) -> None:
    engine = running(leaves=AT_IMPORT)
    done(engine, engine.submit(tiny_request()))
    wait_for(lambda: engine.worker_status() == "ready")


def test_a_job_that_needs_what_was_switched_off_says_both(running: Callable[..., Engine]) -> None:
    engine = running(mine=SAMPLER)
    job = finished(engine, engine.submit(tiny_request(sampler="Mine")))
    assert job.state is JobState.FAILED
    assert "The extension mine is switched off" in str(job.error) and 'no sampler named "Mine"' in str(job.error)


def test_a_worker_does_not_forget_who_was_switched_off(running: Callable[..., Engine]) -> None:
    engine = running(bad=HOOK + "def rewrite_picture():\n    1 / 0\n", exits=EXITS.replace("index == 1", "index == 4"))
    done(engine, engine.submit(tiny_request(batch_count=4)))
    assert health(engine, "bad")["state"] == "switched off"
    done(engine, engine.submit(tiny_request(batch_count=5)))
    done(engine, engine.submit(tiny_request()))
    calls = health(engine, "bad")["hooks"]["worker"]["rewrite_picture"]["calls"]  # type: ignore[index]
    assert calls == 3
