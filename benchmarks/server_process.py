"""What the server benchmarks share: ``webui serve`` in folders of its own, asked over HTTP as a browser would."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STARTER = ROOT / "models" / "Stable-diffusion" / "starter.safetensors"
PATIENCE_S = 300


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, path: str, body: Any = None) -> tuple[int, bytes]:
    """(status, body) of a GET, or a POST of JSON when there is a body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request("GET" if data is None else "POST", path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, which a busy machine changes little; Linux only, 0 elsewhere."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def models_folder(folder: Path, starter: Path, others: int = 0) -> Path:
    """A models folder with the embedded model and, if asked, so many small checkpoints and LoRA files, half each."""
    for kind in ("Stable-diffusion", "Lora"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(starter, folder / "Stable-diffusion" / "starter.safetensors")
    header = b'{"weight":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}}'
    tiny = len(header).to_bytes(8, "little") + header + bytes(8)
    for number in range(others):
        kind = ("Stable-diffusion", "Lora")[number % 2]
        (folder / kind / f"model-{number:05d}.safetensors").write_bytes(tiny)
    return folder


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    started: float
    log: Path

    def wait_for(self, path: str) -> float:
        """Seconds from the start of the process until ``path`` answers 200."""
        while time.perf_counter() - self.started < PATIENCE_S:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended: {self.log.read_text('utf-8')[-2000:]}")
            try:
                if ask(self.port, path)[0] == 200:
                    return time.perf_counter() - self.started
            except OSError:
                time.sleep(0.01)
        raise TimeoutError(path)

    def wait_ready(self, quiet_s: float = 0.4) -> float:
        """Seconds from the start until the worker has loaded the model: "ready", and still so ``quiet_s`` later."""
        since = None
        while time.perf_counter() - self.started < PATIENCE_S:
            now = time.perf_counter()
            if self.worker() != "ready":
                since = None
            elif since is None:
                since = now
            elif now - since > quiet_s:
                return since - self.started
            time.sleep(0.01)
        raise TimeoutError("the worker")

    def worker(self) -> str:
        return str(json.loads(ask(self.port, "/health")[1])["worker"])

    def submit(self, request: dict[str, Any]) -> str:
        status, body = ask(self.port, "/api/v1/jobs", request)
        if status != 201:
            raise RuntimeError(body.decode())
        return str(json.loads(body)["id"])

    def events(self, job: str) -> Iterator[str]:
        """The kinds of a job's events as they arrive, to the one that ends it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        connection.request("GET", f"/api/v1/jobs/{job}/events")
        answer = connection.getresponse()
        try:
            while line := answer.readline():
                if line.startswith(b"event: "):
                    yield line[7:].decode().strip()
        finally:
            connection.close()

    def seconds_to_done(self, request: dict[str, Any]) -> float:
        """From the click to the event that the picture is on disk."""
        clicked = time.perf_counter()
        *_, last = self.events(self.submit(request))
        if last != "done":
            raise RuntimeError(f"the job ended as {last}")
        return time.perf_counter() - clicked


@contextmanager
def server(folder: Path, models: Path, *options: str) -> Iterator[Server]:
    """``webui serve`` with its outputs in ``folder``; ended at the end."""
    port = free_port()
    command = [sys.executable, "-m", "webui", "serve", "--no-browser", "--port", str(port)]
    command += ["--models-dir", str(models), "--outputs-dir", str(folder / "outputs"), *options]
    started = time.perf_counter()
    log = folder / "server.log"
    with log.open("wb") as writing:
        process = subprocess.Popen(command, cwd=ROOT, stdout=writing, stderr=writing)
    try:
        yield Server(process, port, started, log)
    finally:
        process.kill()
        process.wait()


@contextmanager
def program(code: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """``python -c code``, ended at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and the smallest and largest in brackets."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
