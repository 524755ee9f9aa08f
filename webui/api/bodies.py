"""Bodies of requests as the documentation shows them, and those that are a picture file as it is."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from webui.errors import PictureError, RequestError

MAX_PICTURE = 64 * 1024 * 1024
PICTURE_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
}


def body_of(schema: str) -> dict[str, Any]:
    """``openapi_extra`` of a route whose body is JSON of a schema of that name."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"requestBody": {"required": True, "content": content}}


async def read_picture(request: Request) -> bytes:
    """The whole body.  Raises PictureError for one that is too large, RequestError for none."""
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > MAX_PICTURE:
            raise PictureError(f"The picture is larger than {MAX_PICTURE // 1024**2} MB.")
    if not parts:
        raise RequestError("The body is empty; it must be the picture file itself.")
    return bytes(parts)
