"""Routes that list what a request may name: checkpoints, samplers, schedules, upscalers, face restorers, networks."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from webui.engine.engine import Engine
from webui.option_boxes import schema


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

    @router.get("/api/v1/network-kinds")
    def network_kinds() -> list[dict[str, Any]]:
        """The kinds of networks that tags of a prompt name, beside LoRAs, with the schema of their arguments.

        ``/api/v1/cards?kind=NAME`` lists the files of one that has ``folders``; ``names`` are all names of one that has
        a closed list, else null.
        """
        return [
            {
                "name": kind.name,
                "title": kind.title,
                "aliases": list(kind.aliases),
                "usage": kind.usage,
                "folders": list(kind.folders),
                "names": None if kind.names is None else list(kind.names),
                "schema": schema(kind.options),
            }
            for kind in engine.network_kinds()
        ]

    @router.get("/api/v1/schedules")
    def schedules() -> list[dict[str, Any]]:
        """The noise schedules by name."""
        return [{"name": schedule.name, "aliases": list(schedule.names)} for schedule in engine.schedules()]

    return router
