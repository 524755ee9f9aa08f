"""In front of everything: who may talk to this server, how much they may send, and which files Gradio may serve.

One ASGI layer around the whole application, so that a route added later (by an extension, too) is behind it.
Reasons: another web page in the same browser must not reach a server on loopback (cross-site requests, DNS rebinding);
Gradio's ``file=`` route must not hand out files of the disk.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
STREAMS = ("/events", "/queue/data", "/heartbeat")
"""GET routes with these parts stream what jobs do, so they are checked like unsafe methods."""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_BODY = 128 * 1024 * 1024
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'; object-src 'none'",
    ),
)
"""On every answer.  The policy keeps the page from loading or sending anything elsewhere."""


@dataclass(frozen=True)
class Refusal(Exception):
    """An answer instead of the application's: status and one sentence."""

    status: int
    sentence: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Guard:
    """The layer.  ``hosts`` are the names a browser may call this server by; ``file_roots`` what Gradio may serve.

    With a ``password`` every request but ``/health`` must carry it (HTTP Basic, any user name).
    """

    app: App
    hosts: tuple[str, ...]
    outputs_root: Path
    uploads_root: Path
    password: str | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
        except Refusal as refusal:
            await _refuse(scope, refusal, receive, send)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        await self.app(scope, _limited(receive), _with_headers(send))

    def _check(self, scope: Mapping[str, Any]) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        self._check_host(headers.get("host", ""))
        if path != "/health":
            self._check_password(headers.get("authorization", ""))
        streams = any(part in path for part in STREAMS)
        if scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS or streams:
            _check_origin(headers)
        if int(headers.get("content-length", "0") or 0) > MAX_BODY:
            raise Refusal(413, f"The upload is larger than {MAX_BODY // 1024**2} MB.")
        self._check_file(path)

    def _check_host(self, host: str) -> None:
        name = urlsplit(f"//{host}").hostname or ""
        if name not in self.hosts:
            raise Refusal(
                421,
                f'This server is not known as "{name}"; start it with --allow-host {name or "NAME"} if it should be.',
            )

    def _check_password(self, authorization: str) -> None:
        if self.password is None:
            return
        try:
            given = base64.b64decode(authorization.removeprefix("Basic "), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            given = ""
        if not secrets.compare_digest(given.encode(), self.password.encode()):
            challenge = ((b"www-authenticate", b'Basic realm="webui", charset="UTF-8"'),)
            raise Refusal(401, "A password is needed.", challenge)

    def _check_file(self, path: str) -> None:
        """Gradio's file route serves finished pictures and the page's own uploads, nothing else."""
        if "/gradio_api/proxy" in path:
            raise Refusal(403, "This server does not fetch pages for others.")
        for marker in ("/file=", "/gradio_api/file/"):
            if marker not in path:
                continue
            wanted = Path(unquote(path.split(marker, 1)[1])).resolve()
            hidden = any(part.startswith(".") for part in wanted.parts[1:] if self.outputs_root in wanted.parents)
            is_picture = wanted.suffix.lower() in PICTURE_SUFFIXES and not hidden
            if not (
                (wanted.is_relative_to(self.outputs_root) and is_picture) or wanted.is_relative_to(self.uploads_root)
            ):
                raise Refusal(403, "Only finished pictures and the page's own uploads are served.")


def _check_origin(headers: Mapping[str, str]) -> None:
    """A browser says where a request comes from; other programs say nothing, and are let through."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refusal(403, "Another web page must not use this server.")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        raise Refusal(403, "Another web page must not use this server.")


def _limited(receive: Receive) -> Receive:
    """Receive that ends the request when more is sent than was allowed (chunked uploads state no length)."""
    total = 0

    async def limited() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        return {"type": "http.disconnect"} if total > MAX_BODY else message

    return limited


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message.get("headers", [])}
            added = [(name, value) for name, value in HEADERS if name not in present]
            message["headers"] = [*message.get("headers", []), *added]
        await send(message)

    return sending


async def _refuse(scope: Mapping[str, Any], refusal: Refusal, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    body = refusal.sentence.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send(
        {"type": "http.response.start", "status": refusal.status, "headers": [*headers, *HEADERS, *refusal.headers]}
    )
    await send({"type": "http.response.body", "body": body})
