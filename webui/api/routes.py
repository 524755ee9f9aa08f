"""The routes of ``/api/v1`` and ``/health``: they translate JSON to the engine's calls and nothing else."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import TypeAdapter

from webui import __version__
from webui.api import cards, extensions, settings
from webui.api.bodies import PICTURE_BODY, read_picture
from webui.conditioning.modules import label_of, units_of
from webui.engine.engine import Engine
from webui.errors import NotFoundError
from webui.extras import ExtrasRequest
from webui.option_boxes import schema

KEEP_ALIVE_S = 15.0
EVENT_NUMBER = re.compile(r"[0-9]{1,18}")
_REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/GenerationRequest"}}},
    }
}
_EXTRAS_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ExtrasRequest"}}},
    }
}
_TRAINING_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/TrainingRequest"}}},
    }
}


def build_router(engine: Engine) -> APIRouter:
    """Every route, bound to one engine."""
    router = APIRouter()
    router.include_router(cards.build_router(engine))
    router.include_router(settings.build_router(engine))
    router.include_router(extensions.build_router(engine))

    @router.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server is up; answers without a login and without waiting for the worker."""
        return {"status": "ok", "version": __version__, "worker": engine.worker_status()}

    @router.get("/api/v1/extensions/health")
    def extensions_health() -> dict[str, Any]:
        """How the extensions behave: each with its state, its failures, the time of its hooks, and its problems.

        ``problems`` are all sentences, those included that are about no extension alone.
        """
        return {"extensions": engine.extensions_health(), "problems": engine.problems()}

    @router.post("/api/v1/jobs", status_code=201, openapi_extra=_REQUEST_BODY)
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

    @router.get("/api/v1/pictures/{output_id}")
    def picture(output_id: str) -> FileResponse:
        """A finished picture, byte for byte as it was saved."""
        path = engine.output_path(output_id)
        return FileResponse(path, filename=path.name, content_disposition_type="inline")

    @router.post("/api/v1/extras", status_code=201, openapi_extra=_EXTRAS_BODY)
    def submit_extras(body: Annotated[Any, Body()]) -> dict[str, Any]:
        """Queue stored pictures to be made larger or their faces mended; the answer is the job."""
        return engine.submit_extras(ExtrasRequest.from_dict(body)).to_dict()

    @router.get("/api/v1/upscalers")
    def upscalers(refresh: bool = False) -> list[dict[str, Any]]:
        """The upscalers by name, those of latents first; ``refresh`` looks at the models folder again."""
        if refresh:
            engine.refresh()
        return [{"name": one.name, "latent": one.is_latent, "scale": one.scale} for one in engine.upscalers()]

    @router.get("/api/v1/modules")
    def modules(refresh: bool = False) -> list[dict[str, Any]]:
        """The conditioning modules: name, label, how often one may be used at once, and the schema of its options.

        ``refresh`` looks at the models folder again.
        """
        if refresh:
            engine.refresh()
        return [
            {
                "name": module.name,
                "label": label_of(module),
                "units": units_of(module),
                "schema": schema(module.options, engine.listed),
            }
            for module in engine.modules()
        ]

    @router.post("/api/v1/modules/preview", response_class=Response)
    def preview_module(name: Annotated[str, Body()], options: Annotated[dict[str, Any], Body()]) -> Response:
        """The control picture (a PNG) that a module's options mean: its preprocessor's, of its stored picture."""
        png = engine.control_picture(name, options)
        return Response(png, media_type="image/png", headers={"Cache-Control": "no-store"})

    @router.get("/api/v1/face-restorers")
    def face_restorers() -> list[dict[str, Any]]:
        """The face restorers by name."""
        return [{"name": one.name} for one in engine.face_restorers()]

    @router.post("/api/v1/reproduce", status_code=201, openapi_extra=PICTURE_BODY)
    async def reproduce(request: Request, filename: str = "the picture") -> dict[str, Any]:
        """Run the recipe of a picture (the raw file) again; the job gets a ``verdict``."""
        data = await read_picture(request)
        return (await asyncio.to_thread(engine.reproduce, data, filename)).to_dict()

    @router.post("/api/v1/png-info", openapi_extra=PICTURE_BODY)
    async def png_info(request: Request) -> dict[str, Any]:
        """What a picture (the raw file) tells about how it was made, as a request and what could not be mapped."""
        back = await asyncio.to_thread(engine.read_infotext, await read_picture(request))
        return {
            "program": back.program,
            "items": dict(back.items),
            "request": back.request.to_dict(),
            "start": dict(back.start),
            "unmapped": list(back.unmapped),
        }

    @router.post("/api/v1/training", status_code=201, openapi_extra=_TRAINING_BODY)
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

    @router.get("/api/v1/checkpoints")
    def checkpoints(refresh: bool = False) -> list[dict[str, Any]]:
        """The checkpoints of the models folder, the default first; ``refresh`` looks at the folder again."""
        if refresh:
            engine.refresh()
        return [
            {"name": entry.name, "title": entry.title, "sha256": entry.entry.sha256} for entry in engine.checkpoints()
        ]

    @router.get("/api/v1/samplers")
    def samplers() -> list[dict[str, Any]]:
        """The samplers by name, with what "Automatic" means beside each."""
        return [
            {"name": sampler.name, "aliases": list(sampler.aliases), "default_schedule": sampler.default_schedule}
            for sampler in engine.samplers()
        ]

    @router.get("/api/v1/schedules")
    def schedules() -> list[dict[str, Any]]:
        """The noise schedules by name."""
        return [{"name": schedule.name, "aliases": list(schedule.names)} for schedule in engine.schedules()]

    @router.api_route("/api/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    def nothing(request: Request, rest: str) -> None:
        """Everything else below ``/api``: it would reach the page, which answers in its own way."""
        raise NotFoundError(f"There is no {request.method} /api/{rest[:200]}; /docs lists what there is.")

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
