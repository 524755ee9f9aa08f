"""``/api/v1/preprocessors``: what makes control pictures, and a control picture to look at before a job is queued."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from webui.api.extending import ApiRoutes
from webui.engine.access import Access
from webui.hooks import hookimpl
from webui.images.pixels import read_pixels
from webui.metadata.files import encode_picture


def build(access: Access) -> APIRouter:
    """The list, and one control picture."""
    router = APIRouter()

    @router.get("")
    def preprocessors() -> list[dict[str, Any]]:
        """The preprocessors by name."""
        return [{"name": name} for name in access.preprocessors()]

    @router.post("/{name}", response_class=Response, responses={200: {"content": {"image/png": {}}}})
    def preprocess(
        name: str, image: Annotated[str, Body()], options: Annotated[dict[str, Any] | None, Body()] = None
    ) -> Response:
        """The control picture of a stored input picture (``image``, its id), a PNG file without any text."""
        pixels = read_pixels(access.input(image).read_bytes())
        made = access.preprocess(name, pixels, options or {})
        return Response(encode_picture(made, ".png", {}), media_type="image/png")

    return router


@hookimpl
def register_api_routes() -> list[ApiRoutes]:
    """What makes control pictures."""
    return [ApiRoutes(prefix="/api/v1/preprocessors", build=build)]
