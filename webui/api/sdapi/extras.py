"""``extra-single-image`` and ``extra-batch-images``: pictures made larger or mended, as an Extras job of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter

from webui.api.sdapi.errors import UpstreamError
from webui.api.sdapi.models import ExtrasBatchImagesRequest, ExtrasSingleImageRequest
from webui.api.sdapi.pictures import stored
from webui.api.sdapi.responses import encoded
from webui.engine.engine import Engine
from webui.engine.jobs import Job, JobState
from webui.engine.options import Snapshot
from webui.extras import Enlargement, ExtrasRequest, Target


def add_routes(router: APIRouter, engine: Engine) -> None:
    """Both routes, bound to one engine."""

    @router.post("/sdapi/v1/extra-single-image")
    async def extra_single_image(body: ExtrasSingleImageRequest) -> dict[str, Any]:
        """Make a picture larger, or mend its faces; answers when it is done."""
        images = await _worked(engine, body, [("", body.image)])
        return {"html_info": "", "image": images[0]}

    @router.post("/sdapi/v1/extra-batch-images")
    async def extra_batch_images(body: ExtrasBatchImagesRequest) -> dict[str, Any]:
        """The same with several pictures."""
        images = await _worked(engine, body, [(file.name, file.data) for file in body.imageList])
        return {"html_info": "", "images": images}


Body = ExtrasSingleImageRequest | ExtrasBatchImagesRequest


async def _worked(engine: Engine, body: Body, files: Sequence[tuple[str, str]]) -> list[str]:
    options, job = await asyncio.to_thread(_submit, engine, body, files)
    async for _ in engine.follow(job.id):
        pass
    return await asyncio.to_thread(_answer, engine, options, job.id)


def _submit(engine: Engine, body: Body, files: Sequence[tuple[str, str]]) -> tuple[Snapshot, Job]:
    options = engine.options.snapshot()
    images = tuple(stored(data, options, engine) for _, data in files)
    request = to_extras(body, images, tuple(name for name, _ in files if name), options)
    return options, engine.submit_extras(request)


def to_extras(body: Body, images: tuple[str, ...], names: tuple[str, ...], options: Snapshot) -> ExtrasRequest:
    """The request that the body means.

    Faces are mended after the picture was enlarged, whatever ``upscale_first`` says: upstream 1.10 does not look at it.
    """
    target = Target(width=body.upscaling_resize_w, height=body.upscaling_resize_h, crop=body.upscaling_crop)
    return ExtrasRequest(
        images=images,
        names=names if len(names) == len(images) else (),
        upscale=Enlargement(
            upscaler=body.upscaler_1,
            by=body.upscaling_resize,
            to=target if body.resize_mode == 1 else None,
            second=body.upscaler_2,
            second_visibility=body.extras_upscaler_2_visibility,
        ),
        gfpgan_visibility=body.gfpgan_visibility,
        codeformer_visibility=body.codeformer_visibility,
        codeformer_weight=body.codeformer_weight,
        tile=options["ESRGAN_tile"],
        overlap=options["ESRGAN_tile_overlap"],
    )


def _answer(engine: Engine, options: Snapshot, job_id: str) -> list[str]:
    """The pictures of a job that is over, which are not kept: upstream saves none of these either."""
    job = engine.job(job_id)
    try:
        if job.state is not JobState.DONE:
            raise UpstreamError(500, job.error or "The job was interrupted.")
        return [encoded(engine.output_path(output.id).read_bytes(), options) for output in job.outputs]
    finally:
        engine.forget_pictures(job_id)
