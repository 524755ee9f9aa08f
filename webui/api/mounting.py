"""Puts what ``register_api_routes`` returned on the application, so that no extension's route hides or breaks another.

Everything lies behind the guard, as the built-in routes do.  Called by ``app``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute, APIWebSocketRoute

from webui.engine.access import Access
from webui.errors import ExtensionError, NotFoundError
from webui.plugins.calling import FAILED
from webui.plugins.manager import Plugins, extension_named

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

HOOK = "register_api_routes"
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
PREFIX = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._-]*){1,8}")
OWN = "ext"
"""Below this an extension has a place that no other can take."""
RESERVED = frozenset(
    {"api", "sdapi", "internal", "sd_extra_networks", "health", "docs", "docs-files", "openapi.json", "redoc", "file"}
    | {"gradio_api", "svelte", "static", "assets", "config", "login", "logout", "theme.css", "favicon.ico", "proxy"}
    | {"robots.txt", "pwa_icon", "manifest.json", "monitoring", "queue", "stream", "heartbeat", "upload", "custom"}
)
"""First parts of paths that the program or its page answers itself."""


@dataclass(frozen=True)
class Mounted:
    """Routes that are on the application, with the plugin that they are of."""

    prefix: str
    owner: str


def mount_routes(app: FastAPI, plugins: Plugins, access: Access, *, built_in: bool) -> list[Mounted]:
    """Put the routes of built-in parts, or those of extensions, on ``app``; what cannot be is named and left out."""
    mounted: list[Mounted] = []
    for routes, owner in plugins.owned(HOOK).values():
        extension = extension_named(owner)
        if (extension is None) != built_in:
            continue
        try:
            if extension is not None:
                _check_prefix(routes.prefix, extension, mounted)
            router = plugins.run(owner, HOOK, partial(routes.build, access))
            if router is FAILED:
                continue
            if extension is not None:
                _check_router(router)
        except ExtensionError as error:
            plugins.note(owner, HOOK, f"{owner}: {HOOK}: {error}")
        except Exception as error:  # of a router whose routes cannot be described
            plugins.failure(owner, HOOK, f"the description of its routes below {routes.prefix}", error)
        else:
            app.include_router(router, prefix=routes.prefix)
            if extension is not None:
                app.add_api_route(f"{routes.prefix}/{{rest:path}}", _nothing, methods=METHODS, include_in_schema=False)
            mounted.append(Mounted(routes.prefix, owner))
    return mounted


def _nothing(request: Request) -> None:
    """Everything else below a prefix: it would reach the page, which answers in its own way."""
    raise NotFoundError(f"There is no {request.method} {request.url.path[:200]}; /docs lists what there is.")


def _check_prefix(prefix: object, extension: str, mounted: list[Mounted]) -> None:
    """Refuse a prefix that is none, or that another answers."""
    if not isinstance(prefix, str) or not PREFIX.fullmatch(prefix):
        raise ExtensionError(f'the prefix {str(prefix)[:80]!r} is none; it looks like "/{OWN}/{extension}".')
    first, *rest = prefix[1:].split("/")
    if first in RESERVED:
        raise ExtensionError(f'the program answers "/{first}" itself; take a prefix such as "/{OWN}/{extension}".')
    if first == OWN and rest[:1] != [extension]:
        raise ExtensionError(f'below "/{OWN}" the extension {extension} may take "/{OWN}/{extension}" alone.')
    for other in mounted:
        if _lies_below(prefix, other.prefix) or _lies_below(other.prefix, prefix):
            raise ExtensionError(f'"{prefix}" overlaps "{other.prefix}" of {other.owner}, which stays.')


def _check_router(router: object) -> None:
    """Refuse a router that would do more than answer below its prefix."""
    if not isinstance(router, APIRouter):
        raise ExtensionError(f"build returned a {type(router).__name__}, expected an APIRouter.")
    if router.on_startup or router.on_shutdown:
        raise ExtensionError("the router wants to run at the server's start or end; do that work in build.")
    for route in _routes(router):
        if not isinstance(route, APIRoute | APIWebSocketRoute):
            raise ExtensionError(f"the router holds a {type(route).__name__}; only routes of its own are taken.")
        if route.path and not route.path.startswith("/"):
            raise ExtensionError(f'the path "{route.path}" does not begin with "/".')
    get_openapi(title="", version="", routes=router.routes)  # what it cannot describe would take /docs away from all


def _routes(router: APIRouter) -> Iterator[Any]:
    """The routes of a router and of those it includes."""
    for route in router.routes:
        included = getattr(route, "original_router", None)
        if isinstance(included, APIRouter):
            yield from _routes(included)
        else:
            yield route


def _lies_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


@dataclass(frozen=True)
class Contained:
    """An ASGI layer: what an extension's route raises is answered with one sentence that names the extension."""

    app: App
    plugins: Plugins
    mounted: list[Mounted]

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on; a failure of an extension ends here."""
        owner = self._owner(scope)
        if owner is None:
            await self.app(scope, receive, send)
            return
        why_off = self.plugins.why_off(owner)
        if why_off:
            await _switched_off(scope, why_off, receive, send)
            return
        answer = _Begun(send)
        try:
            await self.app(scope, receive, answer.send)
        except (Exception, SystemExit) as error:
            sentence = self.plugins.failure(owner, HOOK, _asked(scope), error)
            if scope["type"] == "websocket":
                with suppress(Exception):
                    await send({"type": "websocket.close", "code": 1011})
            elif answer.begun:
                raise RuntimeError("The answer broke off.") from error  # the connection is cut: half an answer is none
            else:
                await _sentence(sentence, 500)(scope, receive, send)

    def _owner(self, scope: Mapping[str, Any]) -> str | None:
        if scope["type"] not in ("http", "websocket"):
            return None
        return next((each.owner for each in self.mounted if _lies_below(scope["path"], each.prefix)), None)


@dataclass
class _Begun:
    """Whether an answer is under way."""

    _send: Send
    begun: bool = False

    async def send(self, message: Message) -> None:
        self.begun = True
        await self._send(message)


async def _switched_off(scope: MutableMapping[str, Any], why: str, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1013})
    else:
        await _sentence(why, 503)(scope, receive, send)


def _sentence(sentence: str, status: int) -> JSONResponse:
    return JSONResponse({"error": sentence, "detail": sentence}, status_code=status)


def _asked(scope: Mapping[str, Any]) -> str:
    return f"{scope.get('method', 'the connection to')} {scope['path'][:200]}"
