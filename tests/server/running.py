"""A real server in a process of its own, as ``webui serve`` starts it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

AUDIT = '''
"""Writes down every address that this process connects to or asks the resolver for."""
import os, sys

def _hook(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        place = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        with open(os.environ["AUDIT_FILE"], "a") as file:
            file.write(f"{event} {place!r}\\n")

sys.addaudithook(_hook)
'''


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    address: str
    folder: Path
    audit: Path

    @property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=60, trust_env=False)

    def worker_pid(self) -> int:
        (pid,) = children(self.process.pid)
        return pid

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=30)


def children(pid: int) -> list[int]:
    """Python processes that ``pid`` started."""
    found = [
        int(name) for task in Path(f"/proc/{pid}/task").iterdir() for name in (task / "children").read_text().split()
    ]
    return [child for child in found if "webui.engine.worker" in Path(f"/proc/{child}/cmdline").read_text()]


def start(folder: Path, models: Path, *options: str, port: int | None = None) -> Running:
    if port is None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    site = folder / "site"
    site.mkdir(parents=True, exist_ok=True)
    (site / "sitecustomize.py").write_text(AUDIT)
    audit = folder / "audit.txt"
    audit.touch()
    root = Path(__file__).resolve().parent.parent.parent
    command = [sys.executable, "-m", "webui", "serve", "--no-browser", "--port", str(port), "--device", "cpu"]
    command += ["--precision", "fp32", "--threads", "1", "--models-dir", str(models)]
    command += ["--outputs-dir", str(folder / "outputs"), "--extensions-dir", str(folder / "extensions"), *options]
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{root}", "AUDIT_FILE": str(audit)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    running = Running(process, f"http://127.0.0.1:{port}", folder, audit)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            with running.client as client:
                client.get("/health")
            return running
        except httpx.TransportError:
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
    running.kill()
    raise AssertionError("the server did not answer")


def events(client: httpx.Client, job: str, after: int = 0, last_id: str | None = None) -> list[dict[str, Any]]:
    """The job's server-sent events until the stream ends."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    found: list[dict[str, Any]] = []
    with client.stream("GET", f"/api/v1/jobs/{job}/events", params={"after": after}, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        current: dict[str, Any] = {}
        for line in answer.iter_lines():
            if not line and current:
                found.append(current)
                current = {}
            elif line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                current[name] = json.loads(value) if name == "data" else value
    return found


def until_over(client: httpx.Client, job: str, seconds: float = 120) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found: dict[str, Any] = client.get(f"/api/v1/jobs/{job}").json()
        if found["state"] not in ("queued", "running"):
            return found
        time.sleep(0.05)
    raise AssertionError("the job did not come to an end")
