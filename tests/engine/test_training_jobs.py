from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from teaching_toy import toy_pictures, toy_request, toy_settings
from tiny_model import tiny_request
from waiting import wait_for as wait_so_long

from webui.checkpoints.formats import BUILT_IN
from webui.engine.engine import Engine
from webui.engine.executor import Control, Order, Report, Tell, TrainerProcess
from webui.engine.jobs import Event, Job, JobState
from webui.engine.store import MAX_TRAINING_ATTEMPTS, JobStore
from webui.engine.teaching import WAITING, Teacher
from webui.engine.training import read_request
from webui.errors import NotFoundError, RequestError, WorkerError
from webui.settings import Settings

LONG: dict[str, Any] = {"steps": 100, "options": {"sleep_s": 0.02}}
"""Two seconds, and a checkpoint each second."""


def wait_for(condition: Callable[[], object]) -> None:
    """Processes that teach start slowly, and give way to whatever else runs."""
    wait_so_long(condition, seconds=300)


def finished(engine: Engine, job: Job) -> Job:
    wait_for(lambda: engine.job(job.id).state.is_over)
    return engine.job(job.id)


class Painter:
    """An Executor whose jobs end when the gate opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def run(self, order: Order, tell: Tell) -> None:
        self.gate.wait(300)
        tell(Report("done"))

    def interrupt(self, job: str) -> None: ...
    def skip(self, job: str) -> None: ...
    def warm_up(self) -> None: ...
    def status(self) -> str:
        return "ready"

    def close(self) -> None:
        self.gate.set()


class Stage:
    """A Trainer that does what a test tells it."""

    def __init__(self, *acts: Callable[[Order, Tell], None]) -> None:
        self.acts = list(acts)
        self.orders: list[Order] = []
        self.held: list[bool] = []
        self.rests = 0
        self.interrupted = threading.Event()

    def run(self, order: Order, tell: Tell) -> None:
        self.orders.append(order)
        (self.acts.pop(0) if self.acts else lambda order, tell: tell(Report("done")))(order, tell)

    def interrupt(self, job: str) -> None:
        self.interrupted.set()

    def hold(self, on: bool) -> None:
        self.held.append(on)

    def rest(self) -> None:
        self.rests += 1

    def close(self) -> None:
        self.interrupted.set()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return toy_pictures(tmp_path / "pictures")


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path) -> Settings:
    return toy_settings(tmp_path, tiny_checkpoint)


@pytest.fixture
def begin(settings: Settings) -> Iterator[Callable[..., Engine]]:
    """Starts an engine, with a process that teaches if no other trainer is given; the one before is closed."""
    running: list[Engine] = []

    def start(trainer: Any = None, executor: Any = None) -> Engine:
        if running:
            running.pop().close()
        engine = Engine.create(settings, executor or Painter(), trainer)
        running.append(engine)
        engine.start()
        return engine

    yield start
    for engine in running:
        engine.close()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> bytes:
    """The file that the long training comes to when nothing disturbs it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    teacher = Teacher.start(toy_settings(folder, tiny_checkpoint))
    plain = toy_request(toy_pictures(folder / "pictures"), **LONG)
    request = read_request(plain, teacher.plugins.training_kinds, teacher.library)
    reports: list[Report] = []
    teacher.run(Order(job="undisturbed", kind="train", request=request.to_dict()), reports.append, Control())
    assert reports[-1].kind == "done", reports[-1].data
    return Path(next(str(report.data["path"]) for report in reports if report.kind == "exported")).read_bytes()


def heard(engine: Engine, job: str, after: int = 0) -> list[Event]:
    async def gather() -> list[Event]:
        return [event async for event in engine.follow(job, after)]

    return asyncio.run(asyncio.wait_for(gather(), 300))


def saved(engine: Engine, job: Job) -> bool:
    return any(event.kind == "saved" for event in engine.events.since(job.id))


def result(engine: Engine, job: Job) -> bytes:
    over = finished(engine, job)
    assert over.state is JobState.DONE, over.error
    return Path(over.files[0]).read_bytes()


def saved_step(engine: Engine, job: Job) -> int:
    return int(BUILT_IN.read_header(Path(engine.training(job.id).folder) / "state.safetensors").metadata["step"])


def test_a_training_is_a_job_like_any_other(begin: Callable[..., Engine], settings: Settings, pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"no picture")
    (pictures / "broken.txt").write_text("a thing")
    trainer = TrainerProcess(settings)
    engine = begin(trainer)
    assert trainer.pid is None, "no process before there is something to teach"
    job = engine.submit_training(toy_request(pictures))
    assert job.kind == "train" and job.request["checkpoint"] == "tiny" and job.request["optimiser"]["rate"] == 0.05
    events = heard(engine, job.id)
    over = engine.job(job.id)
    assert over.state is JobState.DONE, over.error
    assert over.progress.step == over.progress.steps == 12 and over.outputs == ()
    kinds = [event.kind for event in events]
    assert [kind for kind in kinds if kind not in ("step", "loss")] == [
        "queued", "started", "sample", "sample", "sample", "saved", "exported", "done",
    ]  # fmt: skip
    points = [point for event in events if event.kind == "loss" for point in event.data["points"]]
    assert [point[0] for point in points] == list(range(1, 13))
    view = engine.training(job.id)
    assert [point.step for point in view.losses] == list(range(1, 13))
    assert [point.loss for point in view.losses] == pytest.approx([point[1] for point in points], rel=1e-4)
    assert view.samples == (5, 10, 12) and view.newest_sample == str(engine.sample_path(job.id, 12))
    assert len(view.left_out) == 1 and "broken.png" in view.left_out[0]
    assert view.file == over.files[0] and view.request["kind"] == "toy"
    assert [entry.name for entry in engine.library.entries("lora")] == ["toy thing"], "in the lists at once"
    wait_for(lambda: trainer.pid is None)
    with pytest.raises(NotFoundError, match="no samples of step 7"):
        engine.sample_path(job.id, 7)
    again = begin()
    assert again.job(job.id) == over
    told = heard(again, job.id, events[-1].number)
    assert [event.kind for event in told] == ["exported", "done"]


def test_what_cannot_be_taught_is_refused_at_once(begin: Callable[..., Engine], pictures: Path) -> None:
    engine = begin(Stage())
    taken = engine.library.root / "Lora" / "taken.safetensors"
    taken.parent.mkdir(exist_ok=True)
    taken.write_bytes(b"of somebody")
    for changes, sentence in (
        ({"kind": "tyo"}, 'no kind of training named "tyo"; did you mean "toy"'),
        ({"kind": None}, "no kind of training"),
        ({"data": {"folder": str(pictures / "absent")}}, "no folder .*absent"),
        ({"data": {"folder": str(pictures), "class_folder": "/absent"}}, "no folder .*absent with class pictures"),
        ({"data": 7}, "must be a table"),
        ({"checkpoint": "absent"}, "no checkpoint"),
        ({"options": {"widht": 3}}, 'did you mean "width"'),
        ({"steps": 0}, "Steps"),
        ({"name": "a/b"}, "cannot be a file name"),
        ({"optimiser": 3}, "must be a table"),
        ({"name": "taken"}, 'named "taken" already'),
        ({"samples": {"prompts": "a cat"}}, "Prompts is 'a cat'; it must be a list of texts"),
        ({"steps": 10.5}, "Steps is 10.5; it must be a whole number"),
        ({"data": {"folder": str(pictures), "flip": "false"}}, "Flip is 'false'; it must be true or false"),
    ):  # fmt: skip
        with pytest.raises(RequestError, match=sentence):
            engine.submit_training(toy_request(pictures, **changes))
    with pytest.raises(RequestError, match="table of names and values"):
        engine.submit_training([])
    assert engine.jobs() == []


def test_pausing_going_on_and_restarting_lose_nothing(
    begin: Callable[..., Engine], pictures: Path, expected: bytes
) -> None:
    engine = begin()
    job = engine.submit_training(toy_request(pictures, **LONG))
    other = engine.submit_training(toy_request(pictures, name="other", steps=3))
    assert engine.job(other.id).ahead == 1
    wait_for(lambda: engine.job(job.id).progress.step > 3)
    engine.pause(job.id)
    engine.go_on(job.id)
    wait_for(lambda: [event.kind for event in engine.events.since(job.id)].count("started") == 2)
    step = engine.job(job.id).progress.step
    wait_for(lambda: engine.job(job.id).progress.step > step)
    assert engine.job(other.id).state is JobState.QUEUED
    step = engine.job(job.id).progress.step
    engine = begin()
    assert saved_step(engine, job) >= step, "a server that is closed lets the training save"
    wait_for(lambda: any(event.kind == "loss" for event in engine.events.since(job.id)))
    engine.pause(job.id)
    wait_for(lambda: engine.job(job.id).state is JobState.PAUSED)
    assert engine.job(job.id).progress.phase == "paused" and saved(engine, job)
    assert finished(engine, other).state is JobState.DONE, "another may run meanwhile"
    assert [found.id for found in engine.active()] == [job.id]
    engine = begin(Stage())
    assert engine.job(job.id).state is JobState.PAUSED, "paused after a restart, too"
    engine.interrupt(job.id)
    assert engine.job(job.id).state is JobState.INTERRUPTED
    seen = heard(engine, job.id)[-1]
    assert seen.kind == "interrupted" and heard(engine, job.id, seen.number) == []
    engine = begin()
    seen = heard(engine, job.id, seen.number)[-1]
    engine.go_on(job.id)
    assert result(engine, job) == expected
    assert [event.kind for event in heard(engine, job.id, seen.number) if event.kind in ("queued", "done")] == [
        "queued", "done",
    ]  # fmt: skip
    with pytest.raises(RequestError, match="training is done"):
        engine.go_on(job.id)
    with pytest.raises(RequestError, match="is over"):
        engine.pause(job.id)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing is killed so here")
def test_a_killed_training_process_is_started_again_and_goes_on(
    begin: Callable[..., Engine], settings: Settings, pictures: Path, expected: bytes
) -> None:
    trainer = TrainerProcess(settings)
    engine = begin(trainer)
    job = engine.submit_training(toy_request(pictures, **LONG))
    wait_for(lambda: saved(engine, job))
    before = trainer.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: trainer.pid not in (None, before))
    assert result(engine, job) == expected
    losses = engine.training(job.id).losses
    assert [point.step for point in losses] == list(range(1, 101)), "each step once"


@pytest.mark.slow
def test_after_a_killed_server_the_next_goes_on(
    begin: Callable[..., Engine], settings: Settings, pictures: Path, expected: bytes
) -> None:
    code = """
import json, sys, time
sys.path[:0] = json.loads(sys.argv[3])
from test_training_jobs import Painter
from webui.checkpoints.formats import BUILT_IN
from webui.engine.engine import Engine
from webui.settings import Settings
engine = Engine.create(Settings.from_dict(json.loads(sys.argv[1])), Painter())
engine.start()
job = engine.submit_training(json.loads(sys.argv[2]))
while not any(event.kind == "saved" for event in engine.events.since(job.id)):
    time.sleep(0.01)
print(job.id, flush=True)
time.sleep(60)
"""
    paths = json.dumps([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    plain = json.dumps(toy_request(pictures, **LONG))
    command = [sys.executable, "-c", code, json.dumps(settings.to_dict()), plain, paths]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent.parent)
    try:
        assert server.stdout is not None
        job_id = server.stdout.readline().decode().strip()
    finally:
        server.kill()
        server.wait()
    engine = begin()
    assert result(engine, engine.job(job_id)) == expected


def test_a_training_waits_while_pictures_are_made(begin: Callable[..., Engine], pictures: Path) -> None:
    painter = Painter()
    engine = begin(None, painter)
    engine.submit(tiny_request())
    job = engine.submit_training(toy_request(pictures, **LONG))
    assert engine.job(job.id).ahead == 0, "it does not stand behind the picture"
    wait_for(lambda: engine.job(job.id).progress.phase == WAITING)
    painter.gate.set()
    wait_for(lambda: engine.job(job.id).progress.step > 3)
    painter.gate.clear()
    painting = engine.submit(tiny_request())
    assert engine.job(painting.id).ahead == 0, "it does not wait for the training"
    wait_for(lambda: engine.job(job.id).progress.phase == WAITING)
    assert engine.job(job.id).state is JobState.RUNNING
    step = engine.job(job.id).progress.step
    threading.Event().wait(0.5)
    assert engine.job(job.id).progress.step == step
    painter.gate.set()
    wait_for(lambda: engine.job(job.id).progress.step > step)
    engine.interrupt(job.id)
    assert finished(engine, job).state is JobState.INTERRUPTED


def test_trainings_are_held_as_long_as_pictures_are_wanted(begin: Callable[..., Engine]) -> None:
    painter, stage = Painter(), Stage()
    engine = begin(stage, painter)
    first, second = engine.submit(tiny_request()), engine.submit(tiny_request())
    wait_for(lambda: engine.job(first.id).state is JobState.RUNNING)
    engine.interrupt(second.id)
    assert stage.held[-1] is True and engine.job(second.id).state is JobState.INTERRUPTED
    painter.gate.set()
    finished(engine, first)
    wait_for(lambda: stage.held[-1] is False)


def dies(order: Order, tell: Tell) -> None:
    raise WorkerError("The process that teaches was ended by signal 9.")


def saves_and_dies(order: Order, tell: Tell) -> None:
    tell(Report("saved", {"step": 1}))
    dies(order, tell)


def test_a_process_that_dies_without_a_checkpoint_is_given_up(begin: Callable[..., Engine], pictures: Path) -> None:
    stage = Stage(dies, dies, dies, saves_and_dies, dies, dies, dies)
    engine = begin(stage)
    job = finished(engine, engine.submit_training(toy_request(pictures)))
    assert job.state is JobState.FAILED and "signal 9" in str(job.error) and "can be gone on with" in str(job.error)
    assert len(stage.orders) == 3 + MAX_TRAINING_ATTEMPTS
    engine.go_on(job.id)
    assert finished(engine, job).state is JobState.DONE and engine.job(job.id).error is None


def test_wishes_while_it_stops_and_before_it_began(begin: Callable[..., Engine], pictures: Path) -> None:
    stage = Stage()

    def until_stopped(order: Order, tell: Tell) -> None:
        stage.interrupted.wait(60)
        tell(Report("interrupted"))

    stage.acts = [until_stopped]
    engine = begin(stage)
    first, second = (engine.submit_training(toy_request(pictures, name=name)) for name in ("a", "b"))
    wait_for(lambda: engine.job(first.id).state is JobState.RUNNING)
    engine.pause(second.id)
    assert engine.job(second.id).state is JobState.PAUSED
    engine.interrupt(second.id)
    assert engine.job(second.id).state is JobState.INTERRUPTED
    assert [event.kind for event in heard(engine, second.id)] == ["queued", "paused", "interrupted"]
    with engine._ledger.lock:  # the training does not come to its end between the two wishes
        engine.pause(first.id)
        engine.go_on(first.id)
    assert finished(engine, first).state is JobState.DONE, "paused and gone on with before it had stopped"
    picture = engine.submit(tiny_request())
    with pytest.raises(RequestError, match="no training"):
        engine.pause(picture.id)
    with pytest.raises(RequestError, match="no training"):
        engine.training(picture.id)


def test_job_lists_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    JobStore(path).close()
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE jobs DROP COLUMN files")
    store = JobStore(path)
    job = Job(id="a", kind="train", state=JobState.QUEUED, request={}, created=1.0)
    store.add(job)
    store.save(replace(job, files=("one", "two")))
    assert store.job("a").files == ("one", "two")
    store.close()


def test_the_server_side_needs_no_torch() -> None:
    code = "import sys, webui.engine.engine, webui.engine.teaching; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
