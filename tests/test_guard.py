from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from webui.guard import HEADERS, MAX_BODY, MAX_JSON, Guard

GOOD = {"host": "127.0.0.1:7860"}


class Application:
    """Answers 200 and tells what it read; what reaches it was let through."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client is gone")
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        weak = [(b"Content-Security-Policy", b"default-src *"), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": weak})
        await send({"type": "http.response.body", "body": b"secret"})


class Answer:
    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.status: int = messages[0].get("status", 0)
        self.headers = [(name.decode().lower(), value.decode()) for name, value in messages[0].get("headers", [])]
        self.body = b"".join(message.get("body", b"") for message in messages[1:])
        self.kinds = [message["type"] for message in messages]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs"
    for name in ("a.png", "b.WebP", ".webui/jobs.sqlite3", ".webui/inputs/x.png", ".webui/uploads/u.png", ".hidden.png",
                 "deep/er/c.jpg", "note.txt"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"content")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    return folder


@pytest.fixture
def guard(outputs: Path) -> Guard:
    return Guard(
        app=Application(),
        hosts=("127.0.0.1", "localhost", "::1", "my.box"),
        outputs_root=outputs,
        uploads_root=outputs / ".webui" / "uploads",
    )


def ask(
    guard: Guard,
    path: str = "/",
    method: str = "GET",
    headers: dict[str, str] | list[tuple[str, str]] = GOOD,
    chunks: list[bytes] | None = None,
    kind: str = "http",
) -> Answer:
    pairs = headers.items() if isinstance(headers, dict) else headers
    scope = {
        "type": kind,
        "path": path,
        "method": method,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in pairs],
    }
    parts = list(chunks or [b""])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if kind == "websocket":
            return {"type": "websocket.connect"}
        body = parts.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(parts)}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    asyncio.run(guard(scope, receive, send))
    return Answer(sent)


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "LOCALHOST:1", "[::1]:7860", "my.box"])
def test_the_servers_own_names_are_let_in(guard: Guard, host: str) -> None:
    assert ask(guard, headers={"host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "", "localhost.", "evil@evil.example", "127.0.0.1@evil.example", "[",
     "]", "[::1", "0.0.0.0", "2130706433", "::1", "my.box.evil", "127.0.0.1,evil.example", "evil.example#127.0.0.1",
     "evil.example/127.0.0.1", "evil.example?127.0.0.1", "\xff"],
)  # fmt: skip
def test_a_name_that_dns_rebinding_would_send_is_refused(guard: Guard, host: str) -> None:
    answer = ask(guard, headers={"host": host})
    assert answer.status == 421 and b"--allow-host" in answer.body


@pytest.mark.parametrize("host", ["192.168.1.5:7860", "[fe80::1]:7860", "10.0.0.1"])
def test_a_server_on_every_address_is_called_by_any_of_them_but_by_no_other_name(guard: Guard, host: str) -> None:
    assert ask(guard, headers={"host": host}).status == 421
    everywhere = replace(guard, any_address=True, password="open sesame")
    entry = {"authorization": "Basic " + base64.b64encode(b"me:open sesame").decode()}
    assert ask(everywhere, headers={"host": host, **entry}).status == 200
    assert ask(everywhere, headers={"host": host}).status == 401
    for name in ("evil.example", "192.168.1.5.evil.example", "3232235781", "192.168.1", "", "0x7f.1"):
        assert ask(everywhere, headers={"host": name, **entry}).status == 421


def test_a_request_without_or_with_two_hosts_is_refused(guard: Guard) -> None:
    assert ask(guard, headers={}).status == 421
    assert ask(guard, headers=[("host", "127.0.0.1"), ("Host", "evil.example")]).status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "get"])
@pytest.mark.parametrize(
    "foreign",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
        {"sec-fetch-site": "Same-Origin "},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://["},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://127.0.0.1:7861"},
        {"origin": "http://localhost:7860"},
        {"origin": "http://127.0.0.1:7860.evil.example"},
        {"origin": "http://evil@127.0.0.1:7860"},
        {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
    ],
    ids=str,
)
def test_another_page_can_change_nothing(guard: Guard, method: str, foreign: dict[str, str]) -> None:
    answer = ask(guard, "/api/v1/jobs", method, {**GOOD, **foreign})
    assert answer.status == 403 and guard.app.bodies == []


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/jobs/x/events",
        "/gradio_api/queue/data",
        "/gradio_api/heartbeat/x",
        "/gradio_api/stream/a/b/c/list.m3u8",
    ],
)
def test_another_page_can_listen_to_nothing(guard: Guard, path: str) -> None:
    assert ask(guard, path, headers={**GOOD, "origin": "https://evil.example"}).status == 403
    assert (
        ask(guard, path, headers={**GOOD, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}).status == 403
    )
    assert ask(guard, path, headers={**GOOD, "sec-fetch-site": "same-origin"}).status == 200


def test_another_page_may_link_here_and_embed_nothing(guard: Guard) -> None:
    linked = {**GOOD, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert ask(guard, "/", headers=linked).status == 200
    for mode in ("no-cors", "cors", "websocket"):
        embedded = {**GOOD, "sec-fetch-site": "cross-site", "sec-fetch-mode": mode}
        assert ask(guard, "/api/v1/pictures/x", headers=embedded).status == 403


def test_the_page_itself_and_other_programs_may_do_everything(guard: Guard) -> None:
    own = {**GOOD, "origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
    assert ask(guard, "/api/v1/jobs", "POST", own).status == 200
    assert ask(guard, "/api/v1/jobs", "POST", GOOD).status == 200
    assert ask(guard, "/", headers={**GOOD, "sec-fetch-site": "none"}).status == 200


def test_websockets_of_another_page_are_closed(guard: Guard) -> None:
    refused = ask(guard, "/ws", headers={**GOOD, "origin": "https://evil.example"}, kind="websocket")
    assert refused.kinds == ["websocket.close"]
    assert ask(guard, "/ws", headers={"host": "evil.example"}, kind="websocket").kinds == ["websocket.close"]
    assert ask(guard, "/ws", headers=GOOD, kind="websocket").kinds == ["websocket.accept"]


ROUTES = ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/file/", "/gradio_api/gradio_api/file=", "//file=")


@pytest.mark.parametrize("route", ROUTES)
def test_finished_pictures_and_uploads_are_served(guard: Guard, outputs: Path, route: str) -> None:
    for name in ("a.png", "b.WebP", "deep/er/c.jpg", ".webui/uploads/u.png", "deep/../a.png"):
        assert ask(guard, f"{route}{outputs}/{name}").status == 200, name


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "name",
    [
        "{outputs}/.webui/jobs.sqlite3",
        "{outputs}/.webui/inputs/x.png",
        "{outputs}/.webui/uploads/../jobs.sqlite3",
        "{outputs}/.webui/uploads/../inputs/x.png",
        "{outputs}/.hidden.png",
        "{outputs}/note.txt",
        "{outputs}/link.png",
        "{outputs}/../secret.png",
        "{outputs}/deep/../../secret.png",
        "{outputs}/%2e%2e/secret.png",
        "{outputs}/..%2fsecret.png",
        "{outputs}%2f..%2fsecret.png",
        "{outputs}/a.png/../../secret.png",
        "{outputs}/a.png\0.txt",
        "{outputs}x/a.png",
        "{outputs}",
        "/{outputs}/../secret.png",
        "/etc/passwd",
        "//etc/passwd",
        "etc/passwd",
        "/proc/self/environ",
        "/proc/self/root{outputs}/note.txt",
        "~/.ssh/id_rsa.png",
        "",
        ".",
        "http://evil.example/x.png",
        "https:/evil.example/x.png",
        "file:///etc/passwd",
        "{outputs}/a.png/file={outputs}/../secret.png",
        "\\\\evil\\share\\x.png",
    ],
)
def test_nothing_else_of_the_disk_is(guard: Guard, outputs: Path, route: str, name: str) -> None:
    answer = ask(guard, route + name.replace("{outputs}", str(outputs)))
    assert answer.status == 403 and guard.app.bodies == []


def test_an_outputs_folder_below_a_hidden_one_is_served(tmp_path: Path, guard: Guard) -> None:
    outputs = tmp_path / ".local" / "outputs"
    outputs.mkdir(parents=True)
    (outputs / "a.png").write_bytes(b"x")
    moved = Guard(app=Application(), hosts=guard.hosts, outputs_root=outputs, uploads_root=outputs / ".webui/uploads")
    assert ask(moved, f"/gradio_api/file={outputs}/a.png").status == 200


@pytest.mark.parametrize(
    "path", ["/gradio_api/proxy=https://hf.space/x", "/proxy=https://x.hf.space/", "/gradio_api/proxy"]
)
def test_nothing_is_fetched_for_others(guard: Guard, path: str) -> None:
    assert ask(guard, path).status == 403


@pytest.mark.parametrize(("path", "limit"), [("/api/v1/jobs", MAX_JSON), ("/gradio_api/upload", MAX_BODY)])
def test_a_body_that_says_it_is_too_large_is_not_read(guard: Guard, path: str, limit: int) -> None:
    answer = ask(guard, path, "POST", {**GOOD, "content-length": str(limit + 1)})
    assert answer.status == 413 and guard.app.bodies == []
    assert ask(guard, path, "POST", {**GOOD, "content-length": str(limit)}).status == 200


def test_a_body_that_says_nothing_is_cut_off_when_it_is_too_large(guard: Guard) -> None:
    piece = b"x" * (1024 * 1024)
    answer = ask(guard, "/api/v1/jobs", "POST", {**GOOD, "transfer-encoding": "chunked"}, [piece] * 6)
    assert answer.status == 413 and guard.app.bodies == []
    assert json.loads(answer.body) == {"error": "The upload is larger than 4 MB."}
    assert ask(guard, "/api/v1/jobs", "POST", GOOD, [piece] * 4).status == 200


def test_a_lie_about_the_length_helps_nobody(guard: Guard) -> None:
    piece = b"x" * (1024 * 1024)
    assert ask(guard, "/api/v1/jobs", "POST", {**GOOD, "content-length": "5"}, [piece] * 6).status == 413


@pytest.mark.parametrize("length", ["-1", "abc", "1e9", "٣", "9" * 30, " 5", "+5", ""])
def test_a_length_that_is_no_number_is_refused(guard: Guard, length: str) -> None:
    headers = [*GOOD.items(), ("content-length", length.encode().decode("latin-1"))]
    assert ask(guard, "/api/v1/jobs", "POST", headers).status == 400
    assert ask(guard, "/", headers=[*GOOD.items(), ("content-length", "1"), ("content-length", "2")]).status == 400


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.fixture
def locked(guard: Guard) -> Guard:
    return Guard(
        app=guard.app,
        hosts=guard.hosts,
        outputs_root=guard.outputs_root,
        uploads_root=guard.uploads_root,
        password="pässwörd:x",
    )


@pytest.mark.parametrize(
    "given",
    [None, "", "Basic", "Basic ", basic(""), basic(":"), basic("user:"), basic("user:wrong"), basic("pässwörd:x"),
     "Bearer pässwörd:x",
     basic("u:pässwörd:x").replace("Basic", "Bearer"), "Basic %%%", "Basic 4pyTw6=", basic("\0:\0")],
)  # fmt: skip
def test_without_the_password_there_is_nothing(locked: Guard, given: str | None) -> None:
    headers = dict(GOOD) if given is None else {**GOOD, "authorization": given.encode().decode("latin-1")}
    for path in ("/", "/api/v1/jobs", "/docs", "/gradio_api/queue/data", "/health/", "//health"):
        answer = ask(locked, path, headers=headers)
        assert answer.status == 401 and ("www-authenticate", 'Basic realm="webui", charset="UTF-8"') in answer.headers
    assert ask(locked, "/health", headers=headers).status == 200


def test_with_the_password_everything_is_there(locked: Guard) -> None:
    for scheme in ("Basic", "basic", "BASIC"):
        given = basic("anyone:pässwörd:x").replace("Basic", scheme)
        assert ask(locked, headers={**GOOD, "authorization": given}).status == 200


def test_an_empty_password_lets_nobody_in(guard: Guard) -> None:
    empty = replace(guard, password="")
    for given in (None, basic(""), basic("user:")):
        headers = dict(GOOD) if given is None else {**GOOD, "authorization": given}
        assert ask(empty, headers=headers).status == 401


def test_every_answer_has_the_security_headers_ours_and_once(guard: Guard, locked: Guard) -> None:
    answers = [
        ask(guard),
        ask(guard, headers={"host": "evil.example"}),
        ask(guard, "/gradio_api/file=/etc/passwd"),
        ask(guard, "/api/v1/jobs", "POST", {**GOOD, "origin": "null"}),
        ask(guard, "/api/v1/jobs", "POST", {**GOOD, "content-length": str(MAX_JSON + 1)}),
        ask(locked),
    ]
    for answer in answers:
        for name, value in HEADERS:
            assert [found for key, found in answer.headers if key == name.decode()] == [value.decode()]
    policy = dict(answers[0].headers)["content-security-policy"]
    assert "default-src 'self'" in policy and "object-src 'none'" in policy and "*" not in policy
    assert "http" not in policy and "frame-ancestors 'self'" in policy and "base-uri 'self'" in policy
    for other in ("connect-src", "img-src", "script-src", "font-src"):
        assert other not in policy, "default-src covers it"


def test_refusals_of_the_api_are_json(guard: Guard) -> None:
    answer = ask(guard, "/api/v1/jobs", "POST", {**GOOD, "origin": "https://evil.example"})
    assert json.loads(answer.body) == {"error": "Another web page must not use this server."}
