"""Routes of conditioning modules: their schemas, and the control picture and the palette that options mean."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from webui.conditioning.modules import label_of, units_of
from webui.engine.engine import Engine
from webui.option_boxes import schema
from webui.request import GenerationRequest


def build_router(engine: Engine) -> APIRouter:
    """The routes of conditioning modules, bound to one engine."""
    router = APIRouter()

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

    @router.post("/api/v1/modules/palette")
    def palette(
        name: Annotated[str, Body()],
        options: Annotated[dict[str, Any], Body()],
        request: Annotated[dict[str, Any], Body()],
    ) -> dict[str, Any]:
        """The colours that a module's picture can be painted with, and what each stands for in a request.

        Of the request the prompts, the styles and the size count.  ``places`` of a colour are rectangles (left, top,
        right, bottom) from 0 to 1: where what it stands for holds while nothing is painted.
        """
        return asdict(engine.palette(name, options, GenerationRequest.from_dict(request)))

    return router
