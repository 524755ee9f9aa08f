"""Routes of trainings, which are jobs: queue one, pause it, let it go on, look at its samples."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body
from fastapi.responses import FileResponse
from pydantic import TypeAdapter

from webui.api.bodies import body_of
from webui.engine.engine import Engine


def build_router(engine: Engine) -> APIRouter:
    """The routes of trainings, bound to one engine."""
    router = APIRouter()

    @router.post("/api/v1/training", status_code=201, openapi_extra=body_of("TrainingRequest"))
    def train(body: Annotated[Any, Body()]) -> dict[str, Any]:
        """Queue a training; what the body leaves out is as its kind recommends.  The answer is the job."""
        return engine.submit_training(body).to_dict()

    @router.get("/api/v1/training/kinds")
    def training_kinds() -> list[dict[str, Any]]:
        """What can be taught: the name for requests, what people read, a schema of the ``options``, other defaults."""
        return [
            {
                "name": kind.name,
                "label": kind.label,
                "summary": kind.summary,
                "options": TypeAdapter(kind.options).json_schema(),
                "defaults": dict(kind.defaults),
            }
            for kind in engine.training_kinds()
        ]

    @router.get("/api/v1/training/{job_id}")
    def training(job_id: str) -> dict[str, Any]:
        """A training as it stands now: the job, its losses, the steps with samples, left-out files, the file made."""
        return engine.training(job_id).to_dict()

    @router.post("/api/v1/training/{job_id}/pause")
    def pause(job_id: str) -> dict[str, Any]:
        """Let a training wait, after it wrote a checkpoint; others may run meanwhile."""
        engine.pause(job_id)
        return engine.job(job_id).to_dict()

    @router.post("/api/v1/training/{job_id}/go-on")
    def go_on(job_id: str) -> dict[str, Any]:
        """Queue a training that was paused, interrupted or failed again: it goes on from its last checkpoint."""
        engine.go_on(job_id)
        return engine.job(job_id).to_dict()

    @router.get("/api/v1/training/{job_id}/samples/{step}.png")
    def sample(job_id: str, step: int) -> FileResponse:
        """The samples drawn after a step, one picture."""
        path = engine.sample_path(job_id, step)
        return FileResponse(path, media_type="image/png", content_disposition_type="inline")

    return router
