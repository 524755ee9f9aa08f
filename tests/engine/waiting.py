"""What engine tests wait for."""

from __future__ import annotations

import time
from collections.abc import Callable

from webui.engine.engine import Engine
from webui.engine.jobs import Job


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def finished(engine: Engine, job: Job) -> Job:
    wait_for(lambda: engine.job(job.id).state.is_over)
    return engine.job(job.id)
