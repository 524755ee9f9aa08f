"""A request's body that is a picture file as it is, and how the documentation shows it."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from webui.errors import PictureError, RequestError

MAX_PICTURE = 64 * 1024 * 1024
PICTURE_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
}


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
