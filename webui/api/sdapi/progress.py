"""How far the job under way is, in the two forms in which clients ask for it."""

from __future__ import annotations

import base64
import io
import time
from typing import Any

from PIL import Image

from webui.api.sdapi.models import ProgressRequest
from webui.api.sdapi.pictures import as_text
from webui.api.sdapi.tasks import Tasks
from webui.engine.jobs import Job, JobState

BEGUN = 0.01
"""The progress of a job that has not made a step yet."""


def of_now(tasks: Tasks, *, with_picture: bool) -> dict[str, Any]:
    """The answer of ``/sdapi/v1/progress``."""
    job = tasks.running()
    progress = job.progress if job else None
    preview = tasks.engine.preview(job.id) if job and with_picture else None
    started = (job.started or job.created) if job else time.time()
    steps = _steps_per_picture(job)
    return {
        "progress": _share(job) if job else 0.0,
        "eta_relative": (progress.eta_s or 0.0) if progress else 0.0,
        "state": {
            "skipped": False,
            "interrupted": False,
            "stopping_generation": False,
            "job": tasks.name(job) if job else "",
            "job_count": progress.pictures if progress else 0,
            "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(started)),
            "job_no": max(progress.picture - 1, 0) if progress else 0,
            "sampling_step": progress.step % steps if progress and steps else 0,
            "sampling_steps": steps,
        },
        "current_image": as_text(_png(preview)) if preview else None,
        "textinfo": progress.phase if progress else None,
    }


def of_task(tasks: Tasks, body: ProgressRequest) -> dict[str, Any]:
    """The answer of ``/internal/progress``: a task's state, and a preview that the caller has not seen."""
    job = tasks.job(body.id_task)
    active = job is not None and job.state is JobState.RUNNING
    answer: dict[str, Any] = {
        "active": active,
        "queued": job is not None and job.state is JobState.QUEUED,
        "completed": job is not None and job.state.is_over,
        "progress": None,
        "eta": None,
        "live_preview": None,
        "id_live_preview": body.id_live_preview,
        "textinfo": "Waiting..." if not active else None,
    }
    if job is None or not active:
        return answer
    answer |= {"progress": _share(job), "eta": job.progress.eta_s, "textinfo": job.progress.phase}
    if body.live_preview and job.progress.preview not in (0, body.id_live_preview):
        preview = tasks.engine.preview(job.id)
        if preview:
            data = base64.b64encode(preview).decode()
            answer |= {
                "live_preview": f"data:image/jpeg;base64,{data}",
                "id_live_preview": job.progress.preview,
            }
    return answer


def _share(job: Job) -> float:
    progress = job.progress
    done = progress.step / progress.steps if progress.steps else 0.0
    return min(BEGUN + done, 1.0)


def _steps_per_picture(job: Job | None) -> int:
    if job is None or not job.progress.pictures:
        return 0
    return job.progress.steps // job.progress.pictures


def _png(jpeg: bytes) -> bytes:
    stream = io.BytesIO()
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        image.save(stream, "PNG")
    return stream.getvalue()
