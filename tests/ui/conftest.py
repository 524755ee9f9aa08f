"""A real server for the browser tests, and a page that fails its test on any error or request to elsewhere."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("WEBUI_TEST_MODELS", ROOT / "models"))
START_S = 120
PATIENCE_MS = 120_000
"""How long a page may take for what a test waits for: machines that build things are slow."""


@dataclass(frozen=True)
class Server:
    """A running ``webui serve`` with its own outputs folder."""

    address: str
    outputs: Path


@contextmanager
def _serving(folder: Path, models: Path, *options: str) -> Iterator[Server]:
    """``python -m webui serve`` on a free port; killed at the end, because open streams delay a polite stop."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    outputs, log = folder / "outputs", folder / "log.txt"
    command = [sys.executable, "-m", "webui", "serve", "--no-browser", "--port", str(port)]
    command += ["--outputs-dir", str(outputs), "--models-dir", str(models), *options]
    with log.open("w") as writing:
        process = subprocess.Popen(command, cwd=ROOT, stdout=writing, stderr=subprocess.STDOUT)
    try:
        address = f"http://127.0.0.1:{port}/"
        _wait_for(f"{address}health", process, log)
        yield Server(address, outputs)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[Server]]:
    """Starts a server of its own: ``with serving(folder, models) as server``, perhaps with more options."""
    return _serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that tests share.

    Its models folder holds links to the real one's, so that ``styles.csv`` beside it is no person's.
    """
    folder = tmp_path_factory.mktemp("server")
    (folder / "models").mkdir()
    for part in MODELS.iterdir():
        (folder / "models" / part.name).symlink_to(part.resolve(), target_is_directory=part.is_dir())
    with _serving(folder, folder / "models") as running:
        yield running


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"The server did not come up:\n{log.read_text()}")


def stop_jobs(server: Server) -> None:
    """Stop what a test left running, so that the next one begins with an empty queue."""
    active = f"{server.address}api/v1/jobs?state=active"
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with urllib.request.urlopen(active, timeout=30) as answer:
            jobs = json.load(answer)
        if not jobs:
            return
        for job in jobs:
            stop = urllib.request.Request(f"{server.address}api/v1/jobs/{job['id']}", method="DELETE")
            urllib.request.urlopen(stop, timeout=30).close()
        time.sleep(0.2)


@pytest.fixture
def context(browser: Browser, server: Server) -> Iterator[BrowserContext]:
    """A fresh visitor.  At the end: no script error, no error on the console, nothing asked of another machine."""
    visitor = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    visitor.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []

    def hear(line: ConsoleMessage) -> None:
        address = line.location["url"]
        # A job may end, and its preview go, between the word that there is a preview and the question for it.
        # "null" is no address of ours: a Gradio gallery whose pictures change may ask for it once.
        late = "404" in line.text and ("/preview?n=" in address or address == f"{server.address}null")
        if line.type == "error" and not late:
            wrong.append(f"console: {line.text} ({address})")

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
        page.on("console", hear)

    def check(address: str) -> None:
        if not address.startswith((server.address, "data:", "blob:")):
            wrong.append(f"request to {address}")

    visitor.on("page", watch)
    visitor.on("request", lambda request: check(request.url))
    yield visitor
    visitor.close()
    stop_jobs(server)
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def page(context: BrowserContext, server: Server) -> Page:
    """The page, ready to be used."""
    opened = context.new_page()
    opened.goto(server.address)
    opened.wait_for_selector("#txt2img_generate")
    return opened
