"""In front of everything: who may talk to this server, how much they may send, and which files Gradio may serve.

One ASGI layer around the whole application, so that a route added later (by an extension, too) is behind it.
Reasons: another web page in the same browser must not reach a server on loopback (cross-site requests, DNS rebinding);
Gradio's ``file=`` route must not hand out files of the disk.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
STREAMS = ("/events", "/queue/data", "/heartbeat", "/stream/")
"""GET routes with these parts stream what jobs do, so they are checked like unsafe methods."""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_BODY = 128 * 1024 * 1024
MAX_JSON = 4 * 1024 * 1024
"""A request without its pictures is never larger; reading JSON takes many times its size in memory."""
JSON_ROUTE = "/api/v1/jobs"
JSON_ANSWERS = ("/api/", "/sdapi/", "/internal/")
"""Below these paths programs ask, and are answered in JSON."""
SINGLE = ("host", "origin", "sec-fetch-site", "sec-fetch-mode", "authorization", "content-length")
"""Headers that are looked at here; given twice, two programs could read them differently."""
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'; object-src 'none'; "
        b"base-uri 'self'; form-action 'self'",
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
    """The layer.  ``hosts`` are the names a browser may call this server by, in lower case.

    With ``any_address`` it may also call it by any IP address: for a server that listens on all of its machine's
    addresses behind a password (DNS rebinding needs a name, so it gains nothing).
    Of the disk Gradio may serve finished pictures below ``outputs_root`` and the page's own ``uploads_root``.  With a
    ``password`` every request but ``/health`` must carry it (HTTP Basic, any user name).  Below ``extension_paths``
    programs are answered in JSON, as below the paths of the API.
    """

    app: App
    hosts: tuple[str, ...]
    outputs_root: Path
    uploads_root: Path
    password: str | None = None
    any_address: bool = False
    extension_paths: tuple[str, ...] = ()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
        except Refusal as refusal:
            await self._refuse(scope, refusal, receive, send)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        await self._pass_on(scope, receive, send)

    async def _pass_on(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """The application's answer, or a refusal when more was sent than is allowed (chunks state no length)."""
        upload = _Upload(receive, _body_limit(scope["path"]))
        answer = _Answer(send, upload)
        try:
            await self.app(scope, upload.receive, answer.send)
        except Exception:
            if not upload.too_large:
                raise
        if upload.too_large and not answer.begun:
            await self._refuse(scope, _too_large(upload.limit), receive, send)

    async def _refuse(self, scope: Mapping[str, Any], refusal: Refusal, receive: Receive, send: Send) -> None:
        paths = (*JSON_ANSWERS, *(f"{path}/" for path in self.extension_paths))
        await _refuse(scope, refusal, receive, send, in_json=f"{scope['path']}/".startswith(paths))

    def _check(self, scope: Mapping[str, Any]) -> None:
        headers = _headers(scope)
        path = scope["path"]
        self._check_host(headers.get("host", ""))
        if path != "/health":
            self._check_password(headers.get("authorization", ""))
        streams = any(part in path for part in STREAMS)
        unsafe = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS or streams
        _check_site(headers, unsafe=unsafe)
        length = headers.get("content-length", "0")
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise Refusal(400, "The length of the body is not a number.")
        if int(length) > _body_limit(path):
            raise _too_large(_body_limit(path))
        self._check_file(path)

    def _check_host(self, host: str) -> None:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if name not in self.hosts and not (self.any_address and _is_address(name)):
            raise Refusal(
                421,
                f'This server is not known as "{name[:80]}"; start it with --allow-host {name[:80] or "NAME"} '
                "if it should be.",
            )

    def _check_password(self, authorization: str) -> None:
        if self.password is None:
            return
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            given = ""
        matches = secrets.compare_digest(given.encode(), self.password.encode())
        if scheme.lower() != "basic" or not given or not matches:
            challenge = ((b"www-authenticate", b'Basic realm="webui", charset="UTF-8"'),)
            raise Refusal(401, "A password is needed.", challenge)

    def _check_file(self, path: str) -> None:
        """Gradio's file route serves finished pictures and the page's own uploads, nothing else."""
        if "/proxy=" in path or "/gradio_api/proxy" in path:
            raise Refusal(403, "This server does not fetch pages for others.")
        for asked in _files_asked(path):
            # Gradio takes the name as it stands here; decoded once more it must be harmless, too.
            if not (self._may_serve(asked) and self._may_serve(unquote(asked))):
                raise Refusal(403, "Only finished pictures and the page's own uploads are served.")

    def _may_serve(self, asked: str) -> bool:
        try:
            wanted = Path(asked).resolve()
        except (OSError, ValueError, RuntimeError):
            return False
        if wanted.suffix.lower() not in PICTURE_SUFFIXES:
            return False  # an uploaded page would run in this one's name
        if wanted.is_relative_to(self.uploads_root):
            return True
        if not wanted.is_relative_to(self.outputs_root):
            return False
        return not any(part.startswith(".") for part in wanted.relative_to(self.outputs_root).parts)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _files_asked(path: str) -> list[str]:
    """What each file route that could be meant by ``path`` would be asked for."""
    named = [path[match.end() :] for match in re.finditer("/file=", path)]
    return named or [rest for _, found, rest in [path.partition("/file/")] if found]


@dataclass
class _Upload:
    """A request's body, cut off when it is larger than ``limit`` bytes."""

    _receive: Receive
    limit: int
    too_large: bool = False
    _total: int = field(default=0)

    async def receive(self) -> Message:
        message = await self._receive()
        self._total += len(message.get("body", b""))
        self.too_large = self.too_large or self._total > self.limit
        return {"type": "http.disconnect"} if self.too_large else message


@dataclass
class _Answer:
    """The application's answer with our headers on it; swallowed when the upload was too large before it began."""

    _send: Send
    _upload: _Upload
    begun: bool = False

    async def send(self, message: Message) -> None:
        if self._upload.too_large and not self.begun:
            return
        if message["type"] == "http.response.start":
            self.begun = True
            ours = {name for name, _ in HEADERS}
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in ours]
            message = {**message, "headers": [*kept, *HEADERS]}
        await self._send(message)


def _headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """The headers by lower-case name.  Raises Refusal when one that is looked at here is given twice."""
    headers: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").lower()
        if name in headers and name in SINGLE:
            raise Refusal(400, f"The header {name} is given twice.")
        headers[name] = value.decode("latin-1")
    return headers


def _check_site(headers: Mapping[str, str], *, unsafe: bool) -> None:
    """A browser says where a request comes from; other programs say nothing, and are let through.

    Another web page may link to this one, and nothing else: neither post to it nor embed what it serves.
    """
    foreign = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
    linked = not unsafe and headers.get("sec-fetch-mode") == "navigate"
    origin = headers.get("origin")
    if (foreign and not linked) or (origin is not None and _place(origin) != headers.get("host", "").lower()):
        raise Refusal(403, "Another web page must not use this server.")


def _place(origin: str) -> str:
    """The host and port of an origin, "" for one that has none ("null")."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _body_limit(path: str) -> int:
    return MAX_JSON if path.startswith(JSON_ROUTE) else MAX_BODY


def _too_large(limit: int) -> Refusal:
    return Refusal(413, f"The upload is larger than {limit // 1024**2} MB.")


async def _refuse(scope: Mapping[str, Any], refusal: Refusal, receive: Receive, send: Send, *, in_json: bool) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    if in_json:
        told = {"error": refusal.sentence}
        if not scope["path"].startswith("/api/"):
            told["detail"] = refusal.sentence  # where clients of AUTOMATIC1111 look
        kind, body = b"application/json", json.dumps(told).encode()
    else:
        kind, body = b"text/plain; charset=utf-8", refusal.sentence.encode()
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *HEADERS, *refusal.headers]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
