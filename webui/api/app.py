"""The web application that carries the REST API: errors as one sentence, documentation without the network."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from importlib.resources import as_file, files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException

from webui import __version__
from webui.api.mounting import Contained, mount_routes
from webui.api.routes import build_router
from webui.api.sdapi.errors import UpstreamError, speaks_sdapi
from webui.api.sdapi.errors import answer as sdapi_answer
from webui.api.sdapi.routes import build_router as build_sdapi_router
from webui.api.timing import ProcessTime
from webui.engine.access import access_to
from webui.engine.engine import Engine
from webui.engine.jobs import Job
from webui.engine.training_view import TrainingView
from webui.errors import DEFECT, WebUIError
from webui.extras import ExtrasRequest
from webui.option_boxes import schema as module_schema
from webui.request import GenerationRequest
from webui.training.request import TrainingRequest

log = logging.getLogger(__name__)

DOCS_FILES = "/docs-files"


def build_app(engine: Engine) -> FastAPI:
    """The application with every API route on it; the page is mounted on it later, by the server."""
    app = FastAPI(title="Stable Diffusion web UI", version=__version__, docs_url=None, redoc_url=None)
    access = access_to(engine)
    mount_routes(app, engine.plugins, access, built_in=True)
    app.include_router(build_router(engine))
    app.include_router(build_sdapi_router(engine))
    extensions = mount_routes(app, engine.plugins, access, built_in=False)
    app.state.extension_paths = tuple(each.prefix for each in extensions)
    app.add_middleware(Contained, plugins=engine.plugins, mounted=extensions)
    app.add_middleware(ProcessTime)
    app.add_exception_handler(WebUIError, _sentence)
    app.add_exception_handler(UpstreamError, _sdapi_error)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _defect)
    with as_file(files("fastapi_offline") / "static") as folder:
        app.mount(DOCS_FILES, StaticFiles(directory=folder))
    app.add_api_route("/docs", _docs, include_in_schema=False)
    app.openapi = lambda: _openapi(app, engine)  # type: ignore[method-assign]
    return app


def _docs() -> HTMLResponse:
    """Swagger UI from our own disk."""
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Stable Diffusion web UI: API",
        swagger_js_url=f"{DOCS_FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{DOCS_FILES}/swagger-ui.css",
        swagger_favicon_url=f"{DOCS_FILES}/favicon.png",
    )


def _openapi(app: FastAPI, engine: Engine) -> dict[str, Any]:
    """The schema, with the request and job records, and modules' options, generated from their dataclasses."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for record in (GenerationRequest, ExtrasRequest, TrainingRequest, Job, TrainingView):
            schema = TypeAdapter(record).json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[record.__name__] = schema
        for module in engine.modules():
            schemas[f"{re.sub('[^A-Za-z0-9]', '', module.name)}Options"] = module_schema(module.options)
        app.openapi_schema = document
    return app.openapi_schema


async def _sdapi_error(_: Request, error: Exception) -> JSONResponse:
    return sdapi_answer(error)


async def _sentence(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, WebUIError)
    if speaks_sdapi(request):
        return sdapi_answer(error)
    return _told(request, str(error), error.status)


async def _not_valid(request: Request, error: Exception) -> Response:
    """What FastAPI found wrong with a query or a body, the first of it as a sentence."""
    assert isinstance(error, RequestValidationError)
    if speaks_sdapi(request):
        return await request_validation_exception_handler(request, error)
    first = error.errors()[0]
    place = " ".join(str(part) for part in first["loc"] if part != "body") or "the body"
    return _told(request, f"The {place} is not valid: {first['msg']}.", 422)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if speaks_sdapi(request):
        return await http_exception_handler(request, error)
    return _told(request, f"{str(error.detail).removesuffix('.')}.", error.status_code, error.headers)


async def _defect(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    if speaks_sdapi(request):
        return sdapi_answer(error)
    return _told(request, DEFECT, 500)


def _told(request: Request, told: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A sentence; for clients of AUTOMATIC1111's extensions also where they look for it."""
    body = {"error": told} if request.url.path.startswith("/api/") else {"error": told, "detail": told}
    return JSONResponse(body, status_code=status, headers=headers)
