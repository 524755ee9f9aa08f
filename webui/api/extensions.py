"""The routes of ``/api/v1/extensions``: what is there, and changes of it, which only the owner may make.

Nothing is installed in one request: ``plans`` shows what would happen, ``confirm`` takes the plan's tree hash.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool

from webui.engine.engine import Engine
from webui.engine.rights import check_owner, why_not
from webui.errors import InstallError, RequestError
from webui.plugins import shelf
from webui.plugins.listing import listed
from webui.plugins.plan import Plan
from webui.plugins.sources import Kind, Source, source_of
from webui.plugins.zips import MAX_ZIP

MAX_BODY = 64 * 1024


def _body(**fields: str) -> dict[str, Any]:
    """The OpenAPI text of a JSON body with these text fields."""
    properties = {name: {"type": "string", "description": told} for name, told in fields.items()}
    schema = {"type": "object", "properties": properties}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_SOURCE = {
    "source": "the address of a Git repository (https://…), or the path of a repository, a zip, a folder, a .py file",
    "ref": "a commit, tag or branch of the repository; the main branch when left out",
}
_ZIP = {"requestBody": {"required": True, "content": {"application/zip": {"schema": {"type": "string"}}}}}


def build_router(engine: Engine) -> APIRouter:
    """Every route, bound to one engine."""
    router = APIRouter(prefix="/api/v1/extensions")
    installer = engine.installer
    settings = engine.settings

    def owner(request: Request) -> None:
        """Let the owner pass."""
        check_owner(settings, request.client.host if request.client else None, request.headers)

    owners = APIRouter(dependencies=[Depends(owner)])

    @router.get("")
    def extensions(request: Request) -> dict[str, Any]:
        """The extensions with their state, the trash, and why you may not change them (empty when you may)."""
        running = {plugin.name: plugin.digest for plugin in engine.plugins.extensions}
        rows = listed(installer.folder, installer.state_dir, running, engine.problems())
        return {
            "extensions": [row.to_dict() for row in rows],
            "trash": [
                {
                    "id": kept.id,
                    "name": kept.name,
                    "since": kept.since,
                    "version": kept.record.version if kept.record else "",
                }
                for kept in shelf.trash(installer.folder)
            ],
            "folder": str(installer.folder),
            "safe_mode": not settings.load_extensions,
            "why_not": why_not(settings, request.client.host if request.client else None, request.headers),
        }

    @owners.post("/plans", status_code=201, openapi_extra=_body(**_SOURCE))
    async def plan(request: Request) -> dict[str, Any]:
        """What installing from a place would do: files, permissions, packages.  Nothing of it runs or is installed."""
        body = await _texts(request, "source", "ref")
        source = await run_in_threadpool(source_of, body.get("source", ""), body.get("ref", ""))
        return (await run_in_threadpool(installer.plan, source)).to_dict()

    @owners.post("/plans/zip", status_code=201, openapi_extra=_ZIP)
    async def plan_zip(request: Request, filename: str = "extension.zip", update: str = "") -> dict[str, Any]:
        """The same for a zip file that is the body; with ``update``, as the newer version of that extension."""
        async with _uploaded(request) as path:
            source = Source(kind=Kind.ZIP, location=str(path), label=Path(filename.replace("\\", "/")).name[:200])
            return (await run_in_threadpool(_plan, source, update)).to_dict()

    def _plan(source: Source, update: str) -> Plan:
        return installer.plan_update(update, source) if update else installer.plan(source)

    @owners.post("/plans/{plan_id}/confirm", openapi_extra=_body(tree_hash="the plan's tree_hash"))
    async def confirm(plan_id: str, request: Request) -> dict[str, Any]:
        """Install or update as the plan says, when its files are still those that were shown."""
        body = await _texts(request, "tree_hash")
        return (await run_in_threadpool(installer.confirm, plan_id, body.get("tree_hash", ""))).to_dict()

    @owners.delete("/plans/{plan_id}", status_code=204)
    def discard(plan_id: str) -> None:
        """Forget a plan."""
        installer.discard(plan_id)

    @owners.post("/{name}/plans", status_code=201, openapi_extra=_body(**_SOURCE))
    async def plan_update(name: str, request: Request) -> dict[str, Any]:
        """What updating would do, with the difference; without ``source``, from where the extension came from."""
        body = await _texts(request, "source", "ref")
        named = body.get("source", "")
        source = await run_in_threadpool(source_of, named, body.get("ref", "")) if named else None
        return (await run_in_threadpool(installer.plan_update, name, source)).to_dict()

    @owners.post("/{name}/enable", status_code=204)
    def enable(name: str) -> None:
        """Load the extension at the next start."""
        installer.switch(name, on=True)

    @owners.post("/{name}/disable", status_code=204)
    def disable(name: str) -> None:
        """Do not load the extension at the next start."""
        installer.switch(name, on=False)

    @owners.post("/{name}/rollback", status_code=204)
    def roll_back(name: str) -> None:
        """Go back to the version before; once more, and this one is back."""
        installer.roll_back(name)

    @owners.delete("/{name}")
    def uninstall(name: str) -> dict[str, str]:
        """Put the extension into the trash; the answer is its ``id`` there."""
        return {"id": installer.uninstall(name)}

    @owners.post("/trash/{trash_id}/restore")
    def restore(trash_id: str) -> dict[str, str]:
        """Take an extension out of the trash."""
        return {"name": installer.restore(trash_id)}

    @owners.delete("/trash/all", status_code=204)
    def empty_trash() -> None:
        """Remove for good what is in the trash."""
        installer.empty_trash()

    router.include_router(owners)
    return router


async def _texts(request: Request, *known: str) -> dict[str, str]:
    """A JSON body with text fields of these names, each of which may be missing.  Raises RequestError."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY:
            raise RequestError(f"The body is larger than {MAX_BODY // 1024} kB.")
    try:
        body = json.loads(data) if data else {}
    except (ValueError, RecursionError) as error:
        raise RequestError("The body is no JSON.") from error
    if not isinstance(body, dict) or not all(isinstance(value, str) for value in body.values()) or set(body) - {*known}:
        raise RequestError(f"The body must be an object with texts named {' and '.join(known)}.")
    return body


@contextlib.asynccontextmanager
async def _uploaded(request: Request) -> AsyncIterator[Path]:
    """The body as a file of its own, for as long as it is looked at."""
    with tempfile.TemporaryDirectory(prefix="webui-zip-") as folder:
        path = Path(folder) / "upload.zip"
        size = 0
        with path.open("wb") as file:
            async for part in request.stream():
                size += len(part)
                if size > MAX_ZIP:
                    raise InstallError(f"The zip is larger than {MAX_ZIP // 1024**2} MB; so much is not installed.")
                file.write(part)
        if not size:
            raise RequestError("The body is empty; it must be the zip file itself.")
        yield path
