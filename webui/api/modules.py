"""Routes of conditioning modules: their schemas, and the control picture that options mean."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from webui.conditioning.modules import label_of, units_of
from webui.engine.engine import Engine
from webui.option_boxes import schema


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

    return router
