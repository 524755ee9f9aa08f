"""Routes that list what a request may name: checkpoints, samplers, schedules, upscalers, face restorers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from webui.engine.engine import Engine


def build_router(engine: Engine) -> APIRouter:
    """The routes that list names, bound to one engine."""
    router = APIRouter()

    @router.get("/api/v1/upscalers")
    def upscalers(refresh: bool = False) -> list[dict[str, Any]]:
        """The upscalers by name, those of latents first; ``refresh`` looks at the models folder again."""
        if refresh:
            engine.refresh()
        return [{"name": one.name, "latent": one.is_latent, "scale": one.scale} for one in engine.upscalers()]

    @router.get("/api/v1/face-restorers")
    def face_restorers() -> list[dict[str, Any]]:
        """The face restorers by name."""
        return [{"name": one.name} for one in engine.face_restorers()]

    @router.get("/api/v1/checkpoints")
    def checkpoints(refresh: bool = False) -> list[dict[str, Any]]:
        """The checkpoints of the models folder, the default first; ``refresh`` looks at the folder again."""
        if refresh:
            engine.refresh()
        return [
            {"name": entry.name, "title": entry.title, "sha256": entry.entry.sha256} for entry in engine.checkpoints()
        ]

    @router.get("/api/v1/samplers")
    def samplers() -> list[dict[str, Any]]:
        """The samplers by name, with what "Automatic" means beside each."""
        return [
            {"name": sampler.name, "aliases": list(sampler.aliases), "default_schedule": sampler.default_schedule}
            for sampler in engine.samplers()
        ]

    @router.get("/api/v1/schedules")
    def schedules() -> list[dict[str, Any]]:
        """The noise schedules by name."""
        return [{"name": schedule.name, "aliases": list(schedule.names)} for schedule in engine.schedules()]

    return router
