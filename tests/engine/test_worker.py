from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from tiny_model import tiny_request, tiny_settings
from waiting import finished, wait_for

from webui.engine.engine import Engine
from webui.engine.executor import Order, Report, WorkerProcess
from webui.engine.jobs import JobState
from webui.engine.wire import Wire
from webui.errors import WorkerError
from webui.request import GenerationRequest
from webui.settings import Settings

LONG = tiny_request(steps=200, batch_count=40)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Engine]:
    """One engine on a real worker process; starting one takes seconds."""
    settings = tiny_settings(tmp_path_factory.mktemp("worker"), tiny_checkpoint)
    worker = WorkerProcess(settings)
    engine = Engine.create(settings, worker)
    engine.start()
    yield engine
    engine.close()


def test_the_worker_makes_what_the_runner_makes(shared: Engine, tmp_path: Path, tiny_checkpoint: Path) -> None:
    from webui.engine.executor import Control
    from webui.engine.runner import Runner

    job = finished(shared, shared.submit(tiny_request(batch_count=2)))
    assert job.state is JobState.DONE, job.error
    runner = Runner.start(tiny_settings(tmp_path, tiny_checkpoint))
    own = list(runner.generate(tiny_request(batch_count=2), lambda report: None, Control()))
    assert [shared.output_path(made.id).read_bytes() for made in job.outputs] == [path.read_bytes() for path in own]


def test_interrupting_and_skipping_reach_the_worker(shared: Engine) -> None:
    job = shared.submit(LONG)
    wait_for(lambda: shared.job(job.id).progress.step > 0)
    shared.skip(job.id)
    wait_for(lambda: shared.job(job.id).outputs)
    shared.interrupt(job.id)
    stopped = finished(shared, job)
    assert stopped.state is JobState.INTERRUPTED
    assert 0 < len(stopped.outputs) < 40 and stopped.outputs[0].index == 1


def test_a_wish_to_stop_that_comes_before_the_order_is_kept(shared: Engine) -> None:
    worker = shared.executor
    worker.interrupt("early")
    reports: list[Report] = []
    worker.run(Order(job="early", kind="generate", request=LONG.to_dict()), reports.append)
    assert reports[-1].kind == "interrupted" and not [report for report in reports if report.kind == "picture"]


def test_reports_of_a_job_that_was_given_up_are_nobody_elses(shared: Engine) -> None:
    def give_up(report: Report) -> None:
        raise WorkerError("the listener failed")

    with pytest.raises(WorkerError, match="listener failed"):
        shared.executor.run(Order(job="given up", kind="generate", request=LONG.to_dict()), give_up)
    reports: list[Report] = []
    shared.executor.run(Order(job="next", kind="generate", request=tiny_request().to_dict()), reports.append)
    assert [report.kind for report in reports if report.kind in ("picture", "interrupted", "done", "failed")] == [
        "picture", "done",
    ]  # fmt: skip


def test_a_killed_worker_fails_its_job_comes_back_and_goes_on(shared: Engine) -> None:
    worker = shared.executor
    assert isinstance(worker, WorkerProcess)
    job = shared.submit(LONG)
    waiting = shared.submit(tiny_request())
    wait_for(lambda: shared.job(job.id).outputs)
    before = worker.pid
    os.kill(before, signal.SIGKILL)
    failed = finished(shared, job)
    assert failed.state is JobState.FAILED
    assert "ended by signal 9" in str(failed.error) and "finished pictures are kept" in str(failed.error)
    assert failed.outputs and shared.output_path(failed.outputs[0].id).is_file()
    done = finished(shared, waiting)
    assert done.state is JobState.DONE, done.error
    assert worker.pid != before
    wait_for(lambda: shared.worker_status() == "ready")


def test_a_worker_killed_while_idle_comes_back_by_itself(shared: Engine) -> None:
    worker = shared.executor
    assert isinstance(worker, WorkerProcess)
    wait_for(lambda: shared.worker_status() == "ready")
    before = worker.pid
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: worker.pid != before and shared.worker_status() in ("ready", "busy"))
    assert finished(shared, shared.submit(tiny_request())).state is JobState.DONE


def test_files_of_the_current_folder_are_not_imported(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(tmp_path)
    worker = WorkerProcess(settings)
    try:
        wait_for(lambda: worker.status() == "ready")
    finally:
        worker.close()


def test_a_message_that_cannot_be_read_ends_the_worker_and_its_job(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(life: object, message: object, blob: bytes) -> None:
        raise KeyError("kind")

    monkeypatch.setattr("webui.engine.executor._take", unreadable)
    worker = WorkerProcess(settings)
    try:
        with pytest.raises(WorkerError, match="ended by signal 9"):
            worker.run(Order(job="a", kind="generate", request=tiny_request().to_dict()), lambda report: None)
    finally:
        worker.close()


def test_a_worker_that_cannot_start_says_why_and_is_not_started_for_ever(settings: Settings) -> None:
    worker = WorkerProcess(replace(settings, device="cuda:77"))
    try:
        wait_for(lambda: worker.status() == "down")
        first = worker.pid
        with pytest.raises(WorkerError, match='device "cuda:77" is not available'):
            worker.run(Order(job="a", kind="generate", request=GenerationRequest().to_dict()), lambda report: None)
        wait_for(lambda: worker.status() == "down")
        assert worker.pid in (first, worker.pid)
    finally:
        worker.close()
    with pytest.raises(WorkerError, match="being closed"):
        worker.run(Order(job="b", kind="generate"), lambda report: None)


def test_the_worker_ends_when_the_server_is_gone(settings: Settings) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "webui.engine.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin and process.stdout
    try:
        Wire(process.stdin).send({"type": "settings", "settings": settings.to_dict()})  # type: ignore[arg-type]
        incoming = Wire(process.stdout)  # type: ignore[arg-type]
        assert incoming.receive() == ({"type": "status", "status": "ready"}, b"")
        order = {"job": "a", "kind": "generate", "request": LONG.to_dict(), "done": [], "picture": ""}
        Wire(process.stdin).send({"type": "run", "order": order})  # type: ignore[arg-type]
        while (received := incoming.receive()) is not None and received[0].get("kind") != "picture":
            pass
        process.stdin.close()
        assert process.wait(timeout=20) == 0
        assert [path for path in settings.outputs_dir.rglob("*.png") if path.stat().st_size == 0] == []
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_server_that_is_gone_at_once_leaves_no_worker(settings: Settings) -> None:
    ended = subprocess.run([sys.executable, "-m", "webui.engine.worker"], stdin=subprocess.DEVNULL, timeout=60)
    assert ended.returncode == 0


def test_messages_cross_the_wire_whole() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as inward, os.fdopen(writing, "wb") as outward:
        wire = Wire(outward)  # type: ignore[arg-type]
        threads = [
            Thread(target=lambda n=n: [wire.send({"n": n, "text": "é" * 5000}, bytes([n]) * 3000) for _ in range(20)])
            for n in range(3)
        ]
        for thread in threads:
            thread.start()
        received = [Wire(inward).receive() for _ in range(60)]  # type: ignore[arg-type]
        for thread in threads:
            thread.join()
    for message in received:
        assert message is not None
        assert message[0]["text"] == "é" * 5000 and message[1] == bytes([message[0]["n"]]) * 3000


@pytest.mark.parametrize("cut", [0, 3, 8, 12])
def test_a_message_that_is_cut_off_is_the_end(cut: int) -> None:
    text = json.dumps({"a": 1}).encode()
    reading, writing = os.pipe()
    os.write(writing, (struct.pack(">II", len(text), 3) + text + b"abc")[:cut])
    os.close(writing)
    with os.fdopen(reading, "rb") as inward:
        assert Wire(inward).receive() is None  # type: ignore[arg-type]


def test_a_worker_that_is_closed_tells_its_extensions(tmp_path: Path, tiny_checkpoint: Path) -> None:
    told = tmp_path / "told"
    settings = replace(tiny_settings(tmp_path, tiny_checkpoint), extensions_dir=tmp_path / "extensions")
    settings.extensions_dir.mkdir()
    code = f"from webui.hooks import hookimpl\n@hookimpl\ndef shutdown():\n    open({str(told)!r}, 'w').close()\n"
    (settings.extensions_dir / "last.py").write_text(code)
    worker = WorkerProcess(settings)
    wait_for(lambda: worker.status() == "ready")
    assert not told.exists()
    worker.close()
    assert told.exists()
