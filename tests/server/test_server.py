from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from running import Running, children, events, start, until_over
from tiny_model import mask_bytes, picture_bytes, tiny_request

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the worker is found in /proc")


def body(**changes: Any) -> dict[str, Any]:
    return tiny_request(**changes).to_dict()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Running]:
    running = start(tmp_path_factory.mktemp("server"), tiny_checkpoint.parent.parent)
    yield running
    running.kill()


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client as client:
        yield client


def submit(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/jobs", json=body(**changes))
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_the_whole_way_over_http(client: httpx.Client) -> None:
    job = submit(client, batch_count=2)
    told = events(client, job["id"])
    assert [event["event"] for event in told if event["event"] in ("picture", "done")] == ["picture", "picture", "done"]
    numbers = [int(event["id"]) for event in told]
    assert numbers == sorted(set(numbers))
    done = client.get(f"/api/v1/jobs/{job['id']}").json()
    assert done["state"] == "done" and len(done["outputs"]) == 2
    picture = client.get(f"/api/v1/pictures/{done['outputs'][0]['id']}")
    assert picture.headers["content-type"] == "image/png"
    again = client.post("/api/v1/reproduce", content=picture.content)
    assert again.status_code == 201
    verdict = until_over(client, again.json()["id"])["verdict"]
    assert verdict["outcome"] == "bit-exact" and verdict["reasons"] == []
    info = client.post("/api/v1/png-info", content=picture.content).json()
    assert info["request"]["prompt"] == "a red square" and info["request"]["seed"] == 7
    resumed = events(client, job["id"], last_id=told[-2]["id"])
    assert [event["event"] for event in resumed] == ["done"]
    for odd in (b"\xb2", b"-1", b"9" * 5000):
        assert client.get(f"/api/v1/jobs/{job['id']}/events", headers=[(b"last-event-id", odd)]).status_code == 200
    assert events(client, job["id"], after=numbers[-1]) == []


def test_img2img_and_inpaint_over_http(client: httpx.Client) -> None:
    image = client.post("/api/v1/inputs", content=picture_bytes()).json()["id"]
    mask = client.post("/api/v1/inputs", content=mask_bytes()).json()["id"]
    assert client.get(f"/api/v1/inputs/{image}").content == picture_bytes()
    for start_image in ({"image": image}, {"image": image, "mask": {"image": mask}}):
        job = client.post("/api/v1/jobs", json={**body(), "start": start_image}).json()
        done = until_over(client, job["id"])
        assert done["state"] == "done", done["error"]
        picture = client.get(f"/api/v1/pictures/{done['outputs'][0]['id']}").content
        again = client.post("/api/v1/reproduce", content=picture).json()
        assert until_over(client, again["id"])["verdict"]["outcome"] == "bit-exact"


ERRORS: list[tuple[str, str, dict[str, Any], int]] = [
    ("POST", "/api/v1/jobs", {"json": {"prompt": 5}}, 422),
    ("POST", "/api/v1/jobs", {"json": {"promt": "x"}}, 422),
    ("POST", "/api/v1/jobs", {"json": []}, 422),
    ("POST", "/api/v1/jobs", {"json": {"sampling": {"sampler": "Eulr"}}}, 422),
    ("POST", "/api/v1/jobs", {"json": {"checkpoint": "absent"}}, 422),
    ("POST", "/api/v1/jobs", {"json": {"start": {"image": "0" * 64}}}, 404),
    ("POST", "/api/v1/jobs", {"content": b"{", "headers": {"content-type": "application/json"}}, 422),
    ("POST", "/api/v1/jobs", {"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400),
    ("POST", "/api/v1/jobs", {"content": b"9" * 9000, "headers": {"content-type": "application/json"}}, 400),
    ("POST", "/api/v1/jobs", {"content": b"x" * (4 * 1024**2 + 1)}, 413),
    ("POST", "/api/v1/jobs", {}, 422),
    ("GET", "/api/v1/jobs", {"params": {"limit": 0}}, 422),
    ("GET", "/api/v1/jobs", {"params": {"state": "lost"}}, 422),
    ("GET", "/api/v1/jobs/absent", {}, 404),
    ("GET", "/api/v1/jobs/absent/events", {}, 404),
    ("GET", "/api/v1/jobs/absent/preview", {}, 404),
    ("DELETE", "/api/v1/jobs/absent", {}, 404),
    ("POST", "/api/v1/jobs/absent/skip", {}, 404),
    ("GET", "/api/v1/pictures/absent", {}, 404),
    ("GET", "/api/v1/inputs/absent", {}, 404),
    ("GET", "/api/v1/inputs/%2e%2e%2fjobs.sqlite3", {}, 404),
    ("POST", "/api/v1/inputs", {"content": b"no picture"}, 422),
    ("POST", "/api/v1/inputs", {"content": b""}, 422),
    ("POST", "/api/v1/reproduce", {"content": b"no picture"}, 422),
    ("POST", "/api/v1/reproduce", {"content": picture_bytes()}, 422),
    ("POST", "/api/v1/png-info", {"content": picture_bytes()}, 422),
    ("POST", "/api/v1/png-info", {"content": b"\x89PNG\r\n\x1a\n"}, 422),
    ("PUT", "/api/v1/jobs", {}, 404),
    ("GET", "/api/v2/x", {}, 404),
]


@pytest.mark.parametrize(("method", "path", "extra", "status"), ERRORS, ids=lambda value: str(value)[:40])
def test_errors_are_one_sentence(
    client: httpx.Client, method: str, path: str, extra: dict[str, Any], status: int
) -> None:
    answer = client.request(method, path, **extra)
    assert answer.status_code == status, answer.text
    sentence = answer.json()["error"]
    assert isinstance(sentence, str) and "\n" not in sentence and sentence.endswith(".")
    assert "Traceback" not in sentence and set(answer.json()) == {"error"}


def test_lists(client: httpx.Client) -> None:
    assert {"DPM++ 2M", "Euler", "Euler a", "Heun", "DDIM", "PLMS", "DDPM"} <= {
        sampler["name"] for sampler in client.get("/api/v1/samplers").json()
    }
    assert "Karras" in [schedule["name"] for schedule in client.get("/api/v1/schedules").json()]
    assert client.get("/api/v1/checkpoints", params={"refresh": True}).json()[0]["name"] == "tiny"


def test_cancelling(client: httpx.Client) -> None:
    running, queued = submit(client, steps=500, batch_count=50), submit(client)
    assert [job["id"] for job in client.get("/api/v1/jobs", params={"state": "active"}).json()] == [
        running["id"], queued["id"],
    ]  # fmt: skip
    assert client.delete(f"/api/v1/jobs/{queued['id']}").json()["state"] == "interrupted"
    client.delete(f"/api/v1/jobs/{running['id']}")
    assert until_over(client, running["id"])["state"] == "interrupted"


def test_the_openapi_document_describes_the_request(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    schemas = document["components"]["schemas"]
    assert {"GenerationRequest", "Sampling", "Size", "StartImage", "Mask", "Job", "Output"} <= set(schemas)
    text = client.get("/openapi.json").text
    for reference in set(re.findall(r'"#/components/schemas/(\w+)"', text)):
        assert reference in schemas
    posted = document["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert posted["$ref"] == "#/components/schemas/GenerationRequest"
    assert {"/health", "/api/v1/jobs/{job_id}/events", "/api/v1/reproduce"} <= set(document["paths"])


def test_the_documentation_page_refers_to_our_own_files_only(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert re.findall(r"https?://[^\s\"'<>]+", page.text) == []
    for reference in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert client.get(reference).status_code == 200, reference


def raw(server: Running, request: bytes) -> bytes:
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request.replace(b"HOST", f"{host}:{port}".encode()))
        connection.settimeout(10)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except TimeoutError:
            pass
    return answer


SECRETS = (b"SQLite format", b"root:", b"AUDIT_FILE")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_gradios_file_route_gives_finished_pictures_and_nothing_else(
    server: Running, client: httpx.Client, method: str
) -> None:
    job = submit(client)
    output = until_over(client, job["id"])["outputs"][0]
    outputs = server.folder / "outputs"
    picture = outputs / output["path"]
    assert client.request(method, f"/gradio_api/file={picture}").status_code == 200
    database = outputs / ".webui" / "jobs.sqlite3"
    assert database.is_file()
    up = "/".join([".."] * 12)
    targets = [
        f"{database}", f"{picture}/../../../.webui/jobs.sqlite3", f"{outputs}/%2ewebui/jobs.sqlite3",
        f"{outputs}/%252ewebui/jobs.sqlite3", f"{outputs}/.webui%2fjobs.sqlite3",
        f"{outputs}/.webui/uploads/../jobs.sqlite3",
        f"{outputs}/.webui/uploads/%2e%2e/jobs.sqlite3", f"{outputs}/.webui/uploads/%252e%252e/jobs.sqlite3",
        f"{outputs}/{up}/etc/passwd",
        "/etc/passwd", "//etc/passwd", "%2fetc%2fpasswd", f"{up}/etc/passwd", "etc/passwd",
        "/proc/self/environ", "webui/server.py", "/dev/null", "http://127.0.0.1:1/x", "https://example.invalid/x.png",
    ]  # fmt: skip
    for prefix in ("/gradio_api/file=", "/file=", "/gradio_api/file/", "//gradio_api/file=", "/./gradio_api/file=",
                   "/gradio_api/../gradio_api/file=", "/gradio_api%2ffile=", "/gradio_api/file%3d",
                   "/GRADIO_API/file="):  # fmt: skip
        for target in targets:
            answer = raw(
                server, f"{method} {prefix}{target} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n".encode()
            )
            status = int(answer.split(b" ", 2)[1])
            assert status in (301, 302, 303, 307, 308, 400, 403, 404, 405) or prefix in ("/gradio_api%2ffile=",), (
                prefix, target, answer[:200],
            )  # fmt: skip
            assert not any(secret in answer for secret in SECRETS), (prefix, target)
            assert b"location: http" not in answer.lower(), (prefix, target)


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/proxy=https://example.invalid/", "/gradio_api/custom_component/../../../../etc/passwd/x/y",
     "/static/../../../../../../etc/passwd", "/assets/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
     "/svelte/../../../etc/passwd",
     "/docs-files/../../../../../../../etc/passwd", "/docs-files/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
     "/api/v1/pictures/..%2f..%2f.webui%2fjobs.sqlite3"],
)  # fmt: skip
def test_other_routes_do_not_leave_their_folders(server: Running, path: str) -> None:
    answer = raw(server, f"GET {path} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n".encode())
    assert int(answer.split(b" ", 2)[1]) in (400, 403, 404, 422), answer[:300]
    assert not any(secret in answer for secret in SECRETS)


def test_security_headers_are_on_every_answer(server: Running, client: httpx.Client) -> None:
    for path in ("/", "/health", "/docs", "/openapi.json", "/config", "/api/v1/jobs/absent", "/nowhere",
                 "/gradio_api/file=/etc/passwd", "/theme.css"):  # fmt: skip
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert "default-src 'self'" in headers["content-security-policy"], path
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers and "server" not in headers
    evil = client.get("/api/v1/samplers", headers={"origin": "https://evil.example"})
    assert evil.status_code == 403 and "access-control-allow-origin" not in evil.headers
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    preflight = client.options(
        "/api/v1/jobs", headers={"origin": "https://evil.example", "access-control-request-method": "POST"}
    )
    assert preflight.status_code == 403


def test_a_chunked_body_beyond_the_limit_is_refused(client: httpx.Client) -> None:
    answer = client.post("/api/v1/jobs", content=(b"x" * 1024**2 for _ in range(8)))
    assert answer.status_code == 413 and "larger than 4 MB" in answer.json()["error"]
    assert client.get("/health").status_code == 200


def test_the_server_itself_does_not_import_torch(server: Running, client: httpx.Client) -> None:
    def mapped(pid: int) -> str:
        return Path(f"/proc/{pid}/maps").read_text()

    assert "libtorch" not in mapped(server.process.pid)
    assert "libtorch" in mapped(server.worker_pid())


def test_nothing_leaves_the_machine(server: Running, client: httpx.Client) -> None:
    """From start through generations: no process of ours connected to, or looked up, any other place than loopback."""
    until_over(client, submit(client)["id"])
    client.get("/")
    tried = server.audit.read_text().splitlines()
    foreign = [line for line in tried if not re.search(r"'(127\.\d+\.\d+\.\d+|localhost|::1|0\.0\.0\.0)'|None", line)]
    assert foreign == []


def test_health_answers_while_a_picture_is_made_and_without_a_worker(server: Running, client: httpx.Client) -> None:
    job = submit(client, steps=100, batch_count=100)
    statuses: list[str] = []
    while not client.get(f"/api/v1/jobs/{job['id']}").json()["outputs"]:
        statuses.append(client.get("/health").json()["worker"])
    assert "busy" in statuses
    os.kill(server.worker_pid(), signal.SIGKILL)
    assert client.get("/health").json()["status"] == "ok"
    failed = until_over(client, job["id"])
    assert failed["state"] == "failed" and "signal 9" in failed["error"] and failed["outputs"]
    assert client.get("/health").json()["status"] == "ok"
    assert until_over(client, submit(client)["id"])["state"] == "done"


def test_files_of_the_disk_cannot_be_smuggled_through_an_event(server: Running, client: httpx.Client) -> None:
    """Gradio's own events take file records from the page; a path or an address outside of the uploads is refused."""
    config = client.get("/config").json()
    marked = {"meta": {"_type": "gradio.FileData"}, "orig_name": "x.png", "mime_type": "image/png"}
    before = server.audit.read_text()
    records = [
        {"path": "/etc/passwd"},
        {"path": str(server.folder / "outputs/.webui/jobs.sqlite3")},
        {"path": "http://192.0.2.1/x.png", "url": "http://192.0.2.1/x.png"},
    ]
    for number, dependency in enumerate(config["dependencies"]):
        data = [{**records[(number + place) % 3], **marked} for place, _ in enumerate(dependency["inputs"])]
        client.post(
            "/gradio_api/queue/join", json={"data": data, "fn_index": number, "session_hash": f"smuggle{number}"}
        )
    time.sleep(2)
    uploads = [path for path in (server.folder / "outputs/.webui/uploads").rglob("*") if path.is_file()]
    assert not [path for path in uploads if any(secret in path.read_bytes()[:200] for secret in SECRETS)]
    assert "192.0.2.1" not in server.audit.read_text().removeprefix(before)


def test_a_killed_server_takes_its_job_up_again_behind_a_password(tmp_path: Path, tiny_checkpoint: Path) -> None:
    first = start(tmp_path, tiny_checkpoint.parent.parent)
    try:
        with first.client as client:
            job = submit(client, steps=50, batch_count=12)
            queued = submit(client, seed=99)
            while len(client.get(f"/api/v1/jobs/{job['id']}").json()["outputs"]) < 3:
                time.sleep(0.02)
            worker = first.worker_pid()
    finally:
        first.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists() and "Z" not in Path(f"/proc/{worker}/stat").read_text().split(")")[1]:
        assert time.monotonic() < deadline, "the worker outlived its server"
        time.sleep(0.05)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs").rglob("*.png")}
    assert len(kept) >= 3
    second = start(tmp_path, tiny_checkpoint.parent.parent, "--password", "sesame")
    try:
        with second.client as client:
            assert client.get("/health").status_code == 200
            for path in ("/", "/docs", "/openapi.json", "/api/v1/jobs", "/config", "/theme.css"):
                assert client.get(path).status_code == client.get(path, auth=("anyone", "wrong")).status_code == 401
                assert client.get(path, auth=("anyone", "sesame")).status_code == 200, path
            client.auth = httpx.BasicAuth("anyone", "sesame")
            done = until_over(client, job["id"])
            assert done["state"] == "done", done["error"]
            assert [output["index"] for output in done["outputs"]] == list(range(12))
            assert until_over(client, queued["id"])["state"] == "done"
            for path, changed in kept.items():
                assert path.stat().st_mtime_ns == changed
            assert len(list((tmp_path / "outputs").rglob("*.png"))) == 13, "no picture is there twice"
            assert children(second.process.pid)
        assert second.stop() in (0, 143)
    finally:
        second.kill()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_put_the_job_under_way_back_into_the_queue(
    tmp_path: Path, tiny_checkpoint: Path, ending: signal.Signals
) -> None:
    """The terminal sends SIGINT to the whole process group; some supervisors send it to every process."""
    server = start(tmp_path, tiny_checkpoint.parent.parent)
    try:
        with server.client as client:
            job = submit(client, steps=100, batch_count=100)
            while not client.get(f"/api/v1/jobs/{job['id']}").json()["outputs"]:
                time.sleep(0.02)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(server.worker_pid(), number)
        os.killpg(server.process.pid, ending)
        assert server.process.wait(timeout=30) in (0, 130, 143)
    finally:
        server.kill()
    with closing(sqlite3.connect(tmp_path / "outputs/.webui/jobs.sqlite3")) as database:
        rows = database.execute("SELECT state, attempts, error FROM jobs").fetchall()
    assert rows == [("queued", 0, None)]
