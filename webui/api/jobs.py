"""Routes of jobs: queue, look, stop, skip, follow."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from webui.api.bodies import body_of
from webui.engine.engine import Engine
from webui.errors import NotFoundError

KEEP_ALIVE_S = 15.0
EVENT_NUMBER = re.compile(r"[0-9]{1,18}")


def build_router(engine: Engine) -> APIRouter:
    """The routes of jobs, bound to one engine."""
    router = APIRouter()

    @router.post("/api/v1/jobs", status_code=201, openapi_extra=body_of("GenerationRequest"))
    def submit(body: Annotated[Any, Body()]) -> dict[str, Any]:
        """Queue a request; the answer is the job, its request resolved (seed drawn, names in full).

        What the body leaves out is as the model recommends: size, sampler, schedule, steps, CFG scale.
        """
        return engine.submit_plain(body).to_dict()

    @router.get("/api/v1/jobs")
    def jobs(
        state: Literal["all", "active"] = "all", limit: Annotated[int, Query(ge=1, le=500)] = 50
    ) -> list[dict[str, Any]]:
        """The newest jobs, or with ``state=active`` the running jobs, the queue in order and paused trainings."""
        found = engine.active() if state == "active" else engine.jobs(limit)
        return [job.to_dict() for job in found]

    @router.get("/api/v1/jobs/{job_id}")
    def job(job_id: str) -> dict[str, Any]:
        """A job as it stands now, with the pictures it has finished."""
        return engine.job(job_id).to_dict()

    @router.delete("/api/v1/jobs/{job_id}")
    def cancel(job_id: str) -> dict[str, Any]:
        """Stop a running job between two steps, or take it out of the queue.

        Finished pictures are kept; a training writes a checkpoint, from which it can go on.
        """
        engine.interrupt(job_id)
        return engine.job(job_id).to_dict()

    @router.post("/api/v1/jobs/{job_id}/skip")
    def skip(job_id: str) -> dict[str, Any]:
        """Leave out the picture under way and go on with the next."""
        engine.skip(job_id)
        return engine.job(job_id).to_dict()

    @router.get("/api/v1/jobs/{job_id}/events")
    async def events(
        job_id: str,
        request: Request,
        after: Annotated[int, Query(ge=0)] = 0,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> StreamingResponse:
        """What happens to a job, as server-sent events: queued, started, step, preview, picture, done, failed,
        interrupted; of a training also paused, loss, sample, saved, exported.

        Resumes after ``Last-Event-ID`` or ``after``.
        """
        await asyncio.to_thread(engine.job, job_id)
        if last_event_id and EVENT_NUMBER.fullmatch(last_event_id):
            after = int(last_event_id)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_stream(engine, job_id, after), media_type="text/event-stream", headers=headers)

    @router.get("/api/v1/jobs/{job_id}/preview")
    def preview(job_id: str) -> Response:
        """The newest rough picture of a running job, a JPEG."""
        jpeg = engine.preview(job_id)
        if jpeg is None:
            raise NotFoundError("There is no preview of this job.")
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "no-store"})

    return router


async def _stream(engine: Engine, job_id: str, after: int) -> AsyncIterator[str]:
    """The job's events in the text/event-stream form, with a comment now and then so that proxies keep it open."""
    queue: asyncio.Queue[str | None] = asyncio.Queue()

    async def pump() -> None:
        try:
            async for event in engine.follow(job_id, after):
                data = json.dumps(asdict(event)["data"])
                await queue.put(f"id: {event.number}\nevent: {event.kind}\ndata: {data}\n\n")
        finally:
            await queue.put(None)

    pumping = asyncio.create_task(pump())
    try:
        while True:
            try:
                text = await asyncio.wait_for(queue.get(), KEEP_ALIVE_S)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            if text is None:
                return
            yield text
    finally:
        pumping.cancel()
