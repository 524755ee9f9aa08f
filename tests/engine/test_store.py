from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from webui.engine.jobs import Job, JobState, Output, Progress
from webui.engine.store import MAX_ATTEMPTS, JobStore
from webui.errors import NotFoundError, OutputError

JOB = Job(id="a", kind="generate", state=JobState.QUEUED, request={"prompt": "größe 🐈"}, created=1.0)
OUTPUT = Output(id="o", path="x/1.png", index=0, seed=5, width=64, height=72, infotext="Steps: 1")


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs.sqlite3")


def test_a_job_comes_back_as_it_was(store: JobStore, tmp_path: Path) -> None:
    done = replace(
        JOB, state=JobState.DONE, progress=Progress(step=3, steps=4), verdict={"outcome": "bit-exact"}, finished=3.0
    )
    store.add(JOB, "digest")
    store.begin(replace(JOB, state=JobState.RUNNING, started=2.0))
    store.add_output("a", OUTPUT)
    store.save(replace(done, started=2.0))
    store.close()
    again = JobStore(tmp_path / "jobs.sqlite3")
    assert again.job("a") == replace(done, started=2.0, outputs=(OUTPUT,))
    assert again.output("o") == OUTPUT and again.picture("a") == "digest"


def test_lists_are_in_order(store: JobStore) -> None:
    for number in range(5):
        store.add(replace(JOB, id=str(number)))
    assert [job.id for job in store.in_state(JobState.QUEUED)] == list("01234")
    assert [job.id for job in store.recent(2)] == ["4", "3"]


def test_a_job_that_has_just_begun_does_not_stand_behind_itself(store: JobStore) -> None:
    for number in range(2):
        store.add(replace(JOB, id=str(number)))
    store.begin(replace(JOB, id="0", state=JobState.RUNNING))
    assert [store.ahead(job) for job in "01"] == [0, 1]


def test_what_is_not_there_is_said(store: JobStore) -> None:
    with pytest.raises(NotFoundError, match="no job x"):
        store.job("x")
    with pytest.raises(NotFoundError, match="no picture x"):
        store.output("x")


def test_a_job_is_taken_up_again_once_then_fails_with_its_pictures(store: JobStore) -> None:
    store.add(JOB)
    store.add_output("a", OUTPUT)
    for _ in range(MAX_ATTEMPTS - 1):
        store.begin(replace(JOB, state=JobState.RUNNING))
        assert store.recover() == []
        assert store.job("a").state is JobState.QUEUED
    store.begin(replace(JOB, state=JobState.RUNNING))
    (failed,) = store.recover()
    assert failed.state is JobState.FAILED and "not started again" in str(failed.error)
    assert store.job("a").state is JobState.FAILED and store.job("a").outputs == (OUTPUT,)


def test_a_job_put_back_by_a_clean_end_is_not_counted(store: JobStore) -> None:
    store.add(JOB)
    for _ in range(5):
        store.begin(replace(JOB, state=JobState.RUNNING))
        store.release(JOB)
        assert store.recover() == [] and store.job("a").state is JobState.QUEUED


def test_a_database_that_fails_is_one_sentence(store: JobStore, tmp_path: Path) -> None:
    store.close()
    with pytest.raises(OutputError, match="cannot be written"):
        store.add(JOB)
    with pytest.raises(OutputError, match="cannot be read"):
        store.job("a")
    (tmp_path / "garbage").write_bytes(b"no database at all, whatever its name " * 50)
    with pytest.raises(OutputError, match="cannot be opened"):
        JobStore(tmp_path / "garbage")
