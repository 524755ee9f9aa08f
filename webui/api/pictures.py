"""Routes of finished pictures: fetch one, read its text, make it again, make it larger."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import FileResponse

from webui.api.bodies import PICTURE_BODY, body_of, read_picture
from webui.engine.engine import Engine
from webui.extras import ExtrasRequest


def build_router(engine: Engine) -> APIRouter:
    """The routes of pictures, bound to one engine."""
    router = APIRouter()

    @router.get("/api/v1/pictures/{output_id}")
    def picture(output_id: str) -> FileResponse:
        """A finished picture, byte for byte as it was saved."""
        path = engine.output_path(output_id)
        return FileResponse(path, filename=path.name, content_disposition_type="inline")

    @router.post("/api/v1/extras", status_code=201, openapi_extra=body_of("ExtrasRequest"))
    def submit_extras(body: Annotated[Any, Body()]) -> dict[str, Any]:
        """Queue stored pictures to be made larger or their faces mended; the answer is the job."""
        return engine.submit_extras(ExtrasRequest.from_dict(body)).to_dict()

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

    return router
