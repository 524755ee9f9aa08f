"""The routes of ``/api/v1`` and ``/health``: they translate JSON to the engine's calls and nothing else."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from webui import __version__
from webui.api import cards, extensions, jobs, listings, modules, pictures, settings, training
from webui.engine.engine import Engine
from webui.errors import NotFoundError

PARTS = (cards, settings, extensions, jobs, pictures, modules, training, listings)


def build_router(engine: Engine) -> APIRouter:
    """Every route, bound to one engine."""
    router = APIRouter()
    for part in PARTS:
        router.include_router(part.build_router(engine))

    @router.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server is up; answers without a login and without waiting for the worker."""
        return {"status": "ok", "version": __version__, "worker": engine.worker_status()}

    @router.get("/api/v1/extensions/health")
    def extensions_health() -> dict[str, Any]:
        """How the extensions behave: each with its state, its failures, the time of its hooks, and its problems.

        ``problems`` are all sentences, those included that are about no extension alone.
        """
        return {"extensions": engine.extensions_health(), "problems": engine.problems()}

    @router.api_route("/api/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    def nothing(request: Request, rest: str) -> None:
        """Everything else below ``/api``: it would reach the page, which answers in its own way."""
        raise NotFoundError(f"There is no {request.method} /api/{rest[:200]}; /docs lists what there is.")

    return router
