"""The routes of ``/sdapi/v1``, ``/internal`` and ``/sd_extra_networks``: AUTOMATIC1111's shapes on our engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Body

from webui.api.sdapi import always_on, extras, listings, progress, responses, scripts
from webui.api.sdapi.errors import UpstreamError
from webui.api.sdapi.infotext_fields import filled
from webui.api.sdapi.models import (
    Generation,
    InterrogateRequest,
    PNGInfoRequest,
    ProgressRequest,
    StableDiffusionProcessingImg2Img,
    StableDiffusionProcessingTxt2Img,
)
from webui.api.sdapi.pictures import picture_bytes
from webui.api.sdapi.tasks import Tasks
from webui.api.sdapi.translation import check_checkpoint, settings_of, to_request
from webui.engine.engine import Engine
from webui.engine.jobs import Job, JobState
from webui.engine.options import CHECKPOINT, CHECKPOINT_HASH, Snapshot
from webui.errors import NotFoundError, RequestError
from webui.metadata.files import read_picture_texts
from webui.metadata.infotext import parse

TEACHING = "This program teaches in its own way: see POST /api/v1/training in /docs."
CAPTIONERS = ("clip", "deepdanbooru", "deepbooru")
NO_CAPTIONER = "No captioner is installed, so a picture cannot be described."


def build_router(engine: Engine) -> APIRouter:
    """Every route, bound to one engine."""
    router = APIRouter()
    tasks = Tasks(engine)
    _generation(router, engine, tasks)
    _pictures(router, engine)
    extras.add_routes(router, engine)
    _control(router, engine, tasks)
    _options(router, engine)
    _lists(router, engine)
    _refusals(router)
    return router


def _generation(router: APIRouter, engine: Engine, tasks: Tasks) -> None:
    @router.post("/sdapi/v1/txt2img")
    async def txt2img(body: StableDiffusionProcessingTxt2Img) -> dict[str, Any]:
        """Make pictures from a prompt; answers when they are done."""
        return await _generate(engine, tasks, body, "txt2img")

    @router.post("/sdapi/v1/img2img")
    async def img2img(body: StableDiffusionProcessingImg2Img) -> dict[str, Any]:
        """Make pictures from a picture, possibly masked; answers when they are done."""
        return await _generate(engine, tasks, body, "img2img")


async def _generate(engine: Engine, tasks: Tasks, body: Generation, kind: str) -> dict[str, Any]:
    body, options, job = await asyncio.to_thread(_submit, engine, tasks, body, kind)
    async for _ in engine.follow(job.id):
        pass
    return await asyncio.to_thread(_answer, engine, body, options, job.id)


def _submit(engine: Engine, tasks: Tasks, body: Generation, kind: str) -> tuple[Generation, Snapshot, Job]:
    """Queue what a body asks for; the body comes back with what its ``infotext`` filled in."""
    body = filled(body, engine)
    names = [script.name for script in scripts.selectable(engine)]
    always_on.check(body.alwayson_scripts, img2img=kind == "img2img", selectable=names, modules=engine.modules())
    options = settings_of(body, engine)
    job = engine.submit(scripts.with_script(to_request(body, options, engine), body, engine))
    tasks.add(body.force_task_id, kind, job)
    return body, options, job


def _answer(engine: Engine, body: Generation, options: Snapshot, job_id: str) -> dict[str, Any]:
    """The answer for a job that is over; pictures that were not to be saved are forgotten with it."""
    job = engine.job(job_id)
    try:
        if job.state is JobState.FAILED:
            raise UpstreamError(500, job.error or "The job failed.")
        result = responses.result(engine, body, options, job)
        images = [responses.encoded(data, options) for data in result.images] if body.send_images else []
        return {"images": images, "parameters": responses.parameters(body), "info": responses.info(body, result)}
    finally:
        if not body.save_images:
            engine.forget_pictures(job_id)


def _pictures(router: APIRouter, engine: Engine) -> None:
    @router.post("/sdapi/v1/png-info")
    def png_info(body: PNGInfoRequest) -> dict[str, Any]:
        """The text that a picture carries, as it is and read."""
        data = picture_bytes(body.image, engine.options.snapshot())
        texts = read_picture_texts(data)
        text = texts.get("parameters")
        if text is None:
            return {"info": "", "items": {}, "parameters": {}}
        read = parse(text)
        pairs: dict[str, Any] = {"Prompt": read.prompt, "Negative prompt": read.negative_prompt, **read.fields}
        return {"info": text, "items": texts, "parameters": _with_sizes(pairs)}

    @router.post("/sdapi/v1/interrogate")
    def interrogate(body: InterrogateRequest) -> dict[str, Any]:
        """Describe a picture: there is no captioner yet."""
        if not body.image:
            raise UpstreamError(404, "Image not found")
        if body.model not in CAPTIONERS:
            raise UpstreamError(404, "Model not found")
        raise UpstreamError(501, NO_CAPTIONER)


def _with_sizes(pairs: dict[str, Any]) -> dict[str, Any]:
    """Values such as ``512x768`` in two, as upstream splits them."""
    split: dict[str, Any] = {}
    for key, value in pairs.items():
        width, cross, height = value.partition("x")
        if cross and width.isdecimal() and height.isdecimal():
            split |= {f"{key}-1": width, f"{key}-2": height}
        else:
            split[key] = value
    return split


def _control(router: APIRouter, engine: Engine, tasks: Tasks) -> None:
    @router.get("/sdapi/v1/progress")
    def get_progress(skip_current_image: bool = False) -> dict[str, Any]:
        """How far the job under way is, with a rough picture."""
        return progress.of_now(tasks, with_picture=not skip_current_image)

    @router.post("/sdapi/v1/interrupt")
    def interrupt() -> dict[str, Any]:
        """Stop the job under way; its finished pictures are answered."""
        if job := tasks.running():
            engine.interrupt(job.id)
        return {}

    @router.post("/sdapi/v1/skip")
    def skip() -> None:
        """Leave out the picture under way."""
        if job := tasks.running():
            engine.skip(job.id)

    @router.post("/internal/progress")
    def task_progress(body: ProgressRequest) -> dict[str, Any]:
        """How far a task is."""
        return progress.of_task(tasks, body)

    @router.get("/internal/pending-tasks")
    def pending_tasks() -> dict[str, Any]:
        """The tasks that wait."""
        waiting = tasks.pending()
        return {"size": len(waiting), "tasks": waiting}

    @router.get("/internal/ping")
    def ping() -> dict[str, Any]:
        """An answer."""
        return {}

    @router.post("/sdapi/v1/unload-checkpoint")
    @router.post("/sdapi/v1/reload-checkpoint")
    def checkpoint_memory() -> dict[str, Any]:
        """Taken and without effect: the worker loads a checkpoint when a job needs it and frees it for the next."""
        return {}


def _options(router: APIRouter, engine: Engine) -> None:
    @router.get("/sdapi/v1/options")
    def get_options() -> dict[str, Any]:
        """Every setting with its value."""
        return _told(engine)

    @router.post("/sdapi/v1/options")
    def set_options(changes: Annotated[dict[str, Any], Body()]) -> None:
        """Change settings; unknown ones are left out."""
        if changes.get(CHECKPOINT):
            check_checkpoint(str(changes[CHECKPOINT]), engine)
        engine.options.change(engine.options.unguarded(changes))

    @router.get("/internal/quicksettings-hint")
    def quicksettings_hint() -> list[dict[str, str]]:
        """The settings by name; the labels are upstream's keys in words."""
        return [{"name": key, "label": key.replace("_", " ").capitalize()} for key in engine.options.snapshot()]


def _told(engine: Engine) -> dict[str, Any]:
    """The settings, with the checkpoint that is used when none was chosen."""
    options = dict(engine.options.snapshot())
    found = engine.checkpoints()
    if found:
        current = found[0].entry
        if options[CHECKPOINT]:
            with suppress(RequestError):  # it was chosen once and is gone: a job that needs it says so
                current = engine.find_model(options[CHECKPOINT])
        options |= {CHECKPOINT: current.title, CHECKPOINT_HASH: current.sha256 or ""}
    return options


def _lists(router: APIRouter, engine: Engine) -> None:
    lists: Mapping[str, Any] = {
        "samplers": listings.samplers,
        "scripts": scripts.titles,
        "script-info": scripts.infos,
        "schedulers": listings.schedulers,
        "upscalers": listings.upscalers,
        "latent-upscale-modes": listings.latent_upscale_modes,
        "sd-models": listings.checkpoints,
        "sd-vae": listings.vaes,
        "sd-modules": listings.modules,
        "hypernetworks": listings.hypernetworks,
        "face-restorers": listings.face_restorers,
        "realesrgan-models": listings.realesrgan_models,
        "prompt-styles": listings.prompt_styles,
        "embeddings": listings.embeddings,
        "loras": listings.loras,
        "extensions": listings.extensions,
    }
    for name, read in lists.items():
        router.add_api_route(
            f"/sdapi/v1/{name}", _bound(read, engine), methods=["GET"], summary=(read.__doc__ or "").split("\n")[0]
        )
    for name in ("checkpoints", "vae", "loras", "embeddings"):
        router.add_api_route(
            f"/sdapi/v1/refresh-{name}", _refresh(engine), methods=["POST"], summary="Look at the models folder again."
        )

    @router.get("/sdapi/v1/cmd-flags")
    def cmd_flags() -> dict[str, Any]:
        """What the program was started with."""
        return listings.cmd_flags(engine.settings)

    @router.get("/sdapi/v1/memory")
    def memory() -> dict[str, Any]:
        """Memory in bytes."""
        return listings.memory()


def _bound(read: Any, engine: Engine) -> Any:
    """A route's function without parameters: they would become the query's."""

    def listed() -> Any:
        return read(engine)

    return listed


def _refresh(engine: Engine) -> Any:
    def refresh() -> None:
        engine.refresh()

    return refresh


def _refusals(router: APIRouter) -> None:
    """Routes that are known and not here, each with a sentence; and all that nobody knows."""

    def refuse(sentence: str, status: int = 501) -> Any:
        def refused() -> None:
            raise UpstreamError(status, sentence)

        return refused

    for name in ("create/embedding", "create/hypernetwork", "train/embedding", "train/hypernetwork"):
        router.add_api_route(f"/sdapi/v1/{name}", refuse(TEACHING), methods=["POST"], include_in_schema=False)
    stopping = "This server is stopped where it was started, not by a request."
    for name in ("server-kill", "server-restart", "server-stop"):
        router.add_api_route(f"/sdapi/v1/{name}", refuse(stopping), methods=["POST"], include_in_schema=False)
    for name in ("profile-startup", "sysinfo", "sysinfo-download"):
        router.add_api_route(
            f"/internal/{name}",
            refuse("This server tells nothing about its computer.", 404),
            methods=["GET"],
            include_in_schema=False,
        )
    for prefix in ("/sdapi", "/internal", "/sd_extra_networks"):
        router.add_api_route(
            f"{prefix}/{{rest:path}}",
            _nothing,
            methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            include_in_schema=False,
        )


def _nothing(rest: str) -> None:
    """What is not here: it would reach the page, which answers in its own way."""
    raise NotFoundError("Not Found")
