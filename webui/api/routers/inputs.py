"""``/api/v1/inputs``: the pictures that requests begin with."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from webui.api.bodies import PICTURE_BODY, read_picture
from webui.api.extending import ApiRoutes
from webui.engine.access import Access
from webui.hooks import hookimpl


def build(access: Access) -> APIRouter:
    """A picture goes in and comes back."""
    router = APIRouter()

    @router.post("", status_code=201, openapi_extra=PICTURE_BODY)
    async def put_input(request: Request) -> dict[str, str]:
        """Store a start image or mask (the raw file); requests name it by the ``id`` in the answer."""
        data = await read_picture(request)
        return {"id": await asyncio.to_thread(access.put_input, data)}

    @router.get("/{sha256}")
    def get_input(sha256: str) -> FileResponse:
        """A stored start image or mask, byte for byte."""
        return FileResponse(access.input(sha256), media_type="application/octet-stream")

    return router


@hookimpl
def register_api_routes() -> list[ApiRoutes]:
    """The store of input pictures."""
    return [ApiRoutes(prefix="/api/v1/inputs", build=build)]
