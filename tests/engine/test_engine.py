from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_model import picture_bytes, tiny_request, tiny_weights, write_checkpoint
from waiting import finished, wait_for

from webui.checkpoints.loaders import Header
from webui.engine.catalogue import header_defaults
from webui.engine.engine import Engine
from webui.engine.executor import Control, Order, Report, Tell
from webui.engine.jobs import Event, JobState, Output
from webui.engine.progress import Clock, Previews
from webui.engine.runner import Runner
from webui.errors import NotFoundError, OutputError, RequestError, WorkerError
from webui.pipeline.moments import Stepped
from webui.request import StartImage
from webui.settings import Settings


class Stage:
    """An Executor that does what a test tells it: each job runs the ``act`` given for it."""

    def __init__(self) -> None:
        self.acts: list[Callable[[Order, Tell], None]] = []
        self.orders: list[Order] = []
        self.interrupted: list[str] = []

    def run(self, order: Order, tell: Tell) -> None:
        self.orders.append(order)
        (self.acts.pop(0) if self.acts else lambda order, tell: tell(Report("done")))(order, tell)

    def interrupt(self, job: str) -> None:
        self.interrupted.append(job)

    def skip(self, job: str) -> None: ...
    def warm_up(self) -> None: ...
    def status(self) -> str:
        return "ready"

    def close(self) -> None: ...


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def staged(settings: Settings, stage: Stage) -> Any:
    engine = Engine.create(settings, stage)
    engine.start()
    yield engine
    engine.close()


def heard(engine: Engine, job: str, after: int = 0) -> list[Event]:
    async def gather() -> list[Event]:
        return [event async for event in engine.follow(job, after)]

    return asyncio.run(asyncio.wait_for(gather(), 60))


def output(number: int) -> Output:
    return Output(id=f"o{number}", path=f"{number}.png", index=number, seed=number, width=64, height=64, infotext="")


def test_a_job_goes_its_way(engine: Engine) -> None:
    job = engine.submit(tiny_request(seed=None, batch_count=2))
    events = heard(engine, job.id)
    numbers = [event.number for event in events]
    assert numbers == sorted(set(numbers))
    kinds = [event.kind for event in events if event.kind not in ("step", "preview")]
    assert kinds == ["queued", "started", "picture", "picture", "done"]
    done = engine.job(job.id)
    assert done.state is JobState.DONE and done.error is None and done.finished >= done.started >= done.created
    assert done.request["seed"] is not None
    assert [output.seed for output in done.outputs] == [done.request["seed"], done.request["seed"] + 1]
    for made in done.outputs:
        assert engine.output_path(made.id).read_bytes().startswith(b"\x89PNG")
        assert engine.output(made.id) == made
    assert done.progress.step == done.progress.steps == 6
    assert heard(engine, job.id, after=events[-1].number) == []
    assert engine.store.job(job.id) == done


def test_a_request_is_resolved_when_it_is_made(engine: Engine) -> None:
    job = engine.submit(tiny_request(sampler="euler A", schedule="Automatic"))
    assert job.request["sampling"].items() >= {
        "sampler": "Euler a", "schedule": "Uniform", "steps": 3, "cfg_scale": 7.0, "eta": 1.0,
    }.items()  # fmt: skip
    assert job.request["checkpoint"] == "tiny"


def test_what_is_not_here_is_refused_when_it_is_asked_for(engine: Engine) -> None:
    with pytest.raises(RequestError, match='no sampler named "Eulr"; did you mean "Euler"'):
        engine.submit(tiny_request(sampler="Eulr"))
    with pytest.raises(RequestError, match="no schedule"):
        engine.submit(tiny_request(schedule="Kerras"))
    with pytest.raises(RequestError, match="no checkpoint"):
        engine.submit(tiny_request(checkpoint="absent"))
    with pytest.raises(NotFoundError, match="upload it again"):
        engine.submit(tiny_request(start=StartImage(image="0" * 64)))
    assert engine.jobs() == []


def test_a_model_put_there_later_is_used_without_a_restart(engine: Engine, settings: Settings) -> None:
    write_checkpoint(settings.models_dir / "Stable-diffusion" / "later.safetensors", tiny_weights(1))
    job = finished(engine, engine.submit(tiny_request(checkpoint="later")))
    assert job.state is JobState.DONE, job.error
    old = engine.output_path(job.outputs[0].id).read_bytes()
    write_checkpoint(settings.models_dir / "Stable-diffusion" / "later.safetensors", tiny_weights(2))
    again = finished(engine, engine.submit(tiny_request(checkpoint="later")))
    assert engine.output_path(again.outputs[0].id).read_bytes() != old, "a replaced file is loaded anew"


def test_jobs_run_in_order_and_say_how_many_come_first(staged: Engine, stage: Stage) -> None:
    gate = threading.Event()

    def wait(order: Order, tell: Tell) -> None:
        gate.wait(30)
        tell(Report("done"))

    stage.acts = [wait]
    jobs = [staged.submit(tiny_request(seed=number)) for number in range(4)]
    wait_for(lambda: staged.job(jobs[0].id).state is JobState.RUNNING)
    assert [staged.job(job.id).ahead for job in jobs] == [0, 1, 2, 3]
    assert [job.id for job in staged.active()] == [job.id for job in jobs]
    staged.interrupt(jobs[2].id)
    assert staged.job(jobs[2].id).state is JobState.INTERRUPTED
    assert [event.kind for event in heard(staged, jobs[2].id)] == ["queued", "interrupted"]
    gate.set()
    finished(staged, jobs[3])
    assert [order.job for order in stage.orders] == [jobs[0].id, jobs[1].id, jobs[3].id]
    assert [job.id for job in staged.jobs()] == [job.id for job in reversed(jobs)]


def test_a_running_job_is_interrupted_and_keeps_its_pictures(engine: Engine) -> None:
    job = engine.submit(tiny_request(steps=60, batch_count=50))
    wait_for(lambda: engine.job(job.id).outputs)
    engine.interrupt(job.id)
    stopped = finished(engine, job)
    assert stopped.state is JobState.INTERRUPTED and 0 < len(stopped.outputs) < 50
    assert all(engine.output_path(made.id).is_file() for made in stopped.outputs)
    assert [made.index for made in stopped.outputs] == list(range(len(stopped.outputs)))


def test_a_skipped_picture_is_left_out(engine: Engine, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Report] = []
    control = Control()

    def tell(report: Report) -> None:
        told.append(report)
        if report.kind == "progress" and report.data["picture"] == 2 and report.data["phase"] == "sampling":
            control.skipped.set()

    list(runner.generate(tiny_request(batch_count=3), tell, control))
    assert [report.data["index"] for report in told if report.kind == "picture"] == [0, 2]


def test_an_error_for_people_is_the_jobs_and_the_queue_goes_on(staged: Engine, stage: Stage) -> None:
    def lost(order: Order, tell: Tell) -> None:
        raise WorkerError("The process was ended by signal 9.")

    def defect(order: Order, tell: Tell) -> None:
        raise ZeroDivisionError("secret detail")

    def failed(order: Order, tell: Tell) -> None:
        tell(Report("failed", {"error": "The disk is full.", "status": 507}))

    stage.acts = [lost, defect, failed]
    jobs = [finished(staged, staged.submit(tiny_request())) for _ in range(4)]
    assert [job.state.value for job in jobs] == ["failed", "failed", "failed", "done"]
    assert jobs[0].error == "The process was ended by signal 9."
    assert "went wrong" in str(jobs[1].error) and "secret" not in str(jobs[1].error)
    assert jobs[2].error == "The disk is full."
    assert heard(staged, jobs[0].id)[-1].data == {"error": "The process was ended by signal 9."}


def test_a_defect_while_computing_fails_the_job_alone(
    engine: Engine, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("webui.engine.preparing.prepare", lambda *_: 1 / 0)
        job = finished(engine, engine.submit(tiny_request()))
        assert job.state is JobState.FAILED and "went wrong" in str(job.error)
        patch.setattr("webui.engine.preparing.prepare", lambda *_: (_ for _ in ()).throw(MemoryError()))
        job = finished(engine, engine.submit(tiny_request()))
        assert "not enough memory for a picture of 64x64" in str(job.error)
    assert finished(engine, engine.submit(tiny_request())).state is JobState.DONE


def test_a_full_disk_fails_the_job_and_the_next_goes_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def full(source: Any, target: Any) -> None:
        if str(target).endswith(".png"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        patch.setattr(Path, "rename", full)
        job = finished(engine, engine.submit(tiny_request()))
    assert job.state is JobState.FAILED and "is full; free some space" in str(job.error) and job.outputs == ()
    assert list(engine.settings.outputs_dir.rglob("*.png")) == []
    assert list(engine.settings.outputs_dir.rglob(".tmp-*")) == []
    assert finished(engine, engine.submit(tiny_request())).state is JobState.DONE


def test_a_job_list_that_cannot_be_written_does_not_end_the_queue(
    staged: Engine, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webui.engine.engine.DISK_WAIT_S", 0.05)
    full = threading.Event()
    real = staged.store._write

    def write(statement: str, values: Any) -> None:
        if full.is_set():
            raise OutputError("The job list cannot be written; is the disk full?")
        real(statement, values)

    monkeypatch.setattr(staged.store, "_write", write)

    def picture_on_a_full_disk(order: Order, tell: Tell) -> None:
        full.set()
        tell(Report("picture", vars(output(0))))

    stage.acts = [picture_on_a_full_disk]
    first = staged.submit(tiny_request())
    assert finished(staged, first).state is JobState.FAILED
    with pytest.raises(OutputError):
        staged.submit(tiny_request())
    assert staged.store.job(first.id).state is JobState.RUNNING, "not recorded yet"
    full.clear()
    wait_for(lambda: staged.store.job(first.id).state is JobState.FAILED)
    assert finished(staged, staged.submit(tiny_request())).state is JobState.DONE


def test_a_broken_read_does_not_end_the_queue(staged: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webui.engine.engine.DISK_WAIT_S", 0.05)

    def broken(*_: Any) -> Any:
        raise OutputError("The job list cannot be read: disk I/O error.")

    with monkeypatch.context() as patch:
        patch.setattr(staged.store, "next_queued", broken)
        staged._wake.set()
        wait_for(lambda: not staged._wake.is_set())
    assert finished(staged, staged.submit(tiny_request())).state is JobState.DONE


def test_many_cancelled_jobs_do_not_push_out_the_running_one(staged: Engine, stage: Stage) -> None:
    gate = threading.Event()

    def wait(order: Order, tell: Tell) -> None:
        gate.wait(60)
        tell(Report("picture", vars(output(0))))
        tell(Report("done"))

    stage.acts = [wait]
    first = staged.submit(tiny_request())
    wait_for(lambda: stage.orders)
    for _ in range(60):
        staged.interrupt(staged.submit(tiny_request()).id)
    gate.set()
    assert finished(staged, first).state is JobState.DONE and len(staged.job(first.id).outputs) == 1


def test_a_job_under_way_at_the_end_is_taken_up_at_the_next_start(settings: Settings, stage: Stage) -> None:
    gate = threading.Event()

    def until_closed(order: Order, tell: Tell) -> None:
        tell(Report("picture", vars(output(0))))
        gate.wait(60)
        raise WorkerError("The program is being closed.")

    stage.acts = [until_closed]
    stage.close = gate.set  # type: ignore[method-assign]
    engine = Engine.create(settings, stage)
    engine.start()
    job = engine.submit(tiny_request(batch_count=3))
    wait_for(lambda: engine.job(job.id).outputs)
    seen = engine.events.since(job.id)[-1].number
    engine.close()
    next_stage = Stage()
    engine = Engine.create(settings, next_stage)
    engine.start()
    again = finished(engine, job)
    events = heard(engine, job.id, after=seen)
    engine.close()
    assert again.state is JobState.DONE and next_stage.orders[0].done == (0,)
    assert [event.kind for event in events] == ["queued", "picture", "started", "done"]
    assert events[1].data["id"] == "o0"
    assert all(event.number > seen for event in events)


def test_a_job_from_before_a_restart_is_told_from_the_store(settings: Settings, stage: Stage) -> None:
    stage.acts = [lambda order, tell: [tell(Report("picture", vars(output(0)))), tell(Report("done"))]]  # type: ignore[list-item,return-value]
    engine = Engine.create(settings, stage)
    engine.start()
    job = finished(engine, engine.submit(tiny_request()))
    engine.close()
    engine = Engine.create(settings, Stage())
    engine.start()
    for after in (0, 5000):
        events = heard(engine, job.id, after)
        assert [event.kind for event in events] == ["picture", "done"]
    assert heard(engine, job.id, events[-1].number) == []
    engine.close()


def test_a_second_start_removes_what_a_killed_one_left(settings: Settings) -> None:
    folder = settings.outputs_dir / "txt2img-images" / "2026-01-01"
    folder.mkdir(parents=True)
    (folder / ".tmp-0123").write_bytes(b"half a picture")
    engine = Engine.create(settings, Stage())
    engine.start()
    engine.close()
    assert list(folder.iterdir()) == []


def test_the_store_is_in_wal_mode_beside_the_pictures(staged: Engine) -> None:
    path = staged.settings.outputs_dir / ".webui" / "jobs.sqlite3"
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_picture_without_text_cannot_be_reproduced_or_read(engine: Engine) -> None:
    from webui.errors import MetadataError

    with pytest.raises(MetadataError, match="carries no recipe and no parameters"):
        engine.reproduce(picture_bytes(), "plain.png")
    with pytest.raises(MetadataError, match="carries no parameters"):
        engine.read_infotext(picture_bytes())


def test_advice_in_a_file_that_is_none_is_left_out() -> None:
    header = Header({}, {"starter.defaults": "steps=many; cfg_scale=4.5; sampler=Euler; wings=2; ;=;schedule"}, 0)
    assert header_defaults(header) == {"cfg_scale": 4.5, "sampler": "Euler"}


def test_previews_cost_little_and_are_small_jpegs(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webui.engine.progress.PREVIEW_INTERVAL_S", 0.0)
    monkeypatch.setattr("webui.engine.progress.PREVIEW_SHARE", 1.0)
    job = finished(engine, engine.submit(tiny_request(steps=8)))
    jpeg = engine.preview(job.id)
    assert jpeg is not None and jpeg.startswith(b"\xff\xd8") and len(jpeg) < 20_000
    assert engine.job(job.id).progress.preview > 0
    assert engine.preview("another") is None


def test_many_jobs_at_once_all_come_to_an_end(staged: Engine) -> None:
    jobs: list[str] = []
    threads = [
        threading.Thread(target=lambda: jobs.extend(staged.submit(tiny_request()).id for _ in range(10)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: not staged.active())
    assert len(set(jobs)) == 40 and {staged.job(job).state for job in jobs} == {JobState.DONE}
    assert replace(staged.job(jobs[0])).ahead == 0


def test_previews_keep_their_share_of_the_whole_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten pictures of twenty steps of a second each, after a minute of loading; a preview costs a second."""
    now = [1000.0]

    def costly(*_: Any) -> bytes:
        now[0] += 1
        return b"jpeg"

    monkeypatch.setattr("webui.engine.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("webui.engine.progress.preview_jpeg", costly)
    told: list[Report] = []
    previews = Previews(told.append, Clock(10, 0), model=None)  # type: ignore[arg-type]
    now[0] += 60
    for picture in range(10):
        for step in range(1, 21):
            now[0] += 1
            previews.offer(Stepped((picture,), step, 20, denoised=None))  # type: ignore[arg-type]
    assert 200 * 0.03 - 1 <= len(told) <= 200 * 0.03 + 1
