"""A repository over https: git's own server program behind a certificate made here; no login, no other protocol."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from extension_sources import files, git, repository

from webui.errors import InstallError
from webui.plugins.install import Installer
from webui.plugins.sources import source_of

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")


class Backend(BaseHTTPRequestHandler):
    """Runs ``git http-backend`` on the folder ``root``; /locked asks for a password, /away sends elsewhere."""

    root = Path()
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/locked"):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path.startswith("/away"):
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/sky{self.path[5:]}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        place = urlsplit(self.path)
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": place.path,
            "QUERY_STRING": place.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        done = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        self.send_response(int(lines.pop("Status", "200").split()[0]))
        for name, value in lines.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server's address; git believes its certificate, and the person has a password for it in their files."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.setattr(Backend, "root", tmp_path)
    monkeypatch.setattr(Backend, "asked", [], raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("GIT_SSL_CAINFO", str(certificate))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def installer(tmp_path: Path) -> Iterator[Installer]:
    made = Installer(tmp_path / "extensions", tmp_path / "state")
    yield made
    made.close()


def test_a_repository_over_https(installer: Installer, address: str, tmp_path: Path) -> None:
    place = repository(tmp_path / "sky", {"__init__.py": ""})  # no manifest: the address names it
    plan = installer.plan(source_of(f"{address}/sky/.git"))
    assert plan.commit == git(place, "rev-parse", "HEAD") and plan.manifest.name == "sky"
    installer.confirm(plan.id, plan.tree_hash)
    with pytest.raises(InstallError, match="up to date"):
        installer.plan_update("sky")


def test_no_password_is_given_or_asked_for(installer: Installer, address: str, tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="Git could not get it") as caught:
        installer.plan(source_of(f"{address}/locked/sky"))
    assert "secret" not in str(caught.value)
    assert len(Backend.asked) == 1  # nothing was tried again with a login


def test_no_other_protocol_is_followed(installer: Installer, address: str, tmp_path: Path) -> None:
    repository(tmp_path / "sky", files())
    with pytest.raises(InstallError, match="Git could not get it"):
        installer.plan(source_of(f"{address}/away/.git"))
    assert all(path.startswith("/away") for path in Backend.asked)


def test_a_certificate_that_nobody_vouches_for(
    installer: Installer, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(tmp_path / "sky", files())
    monkeypatch.delenv("GIT_SSL_CAINFO")
    monkeypatch.setenv("GIT_SSL_NO_VERIFY", "1")
    with pytest.raises(InstallError, match="certificate"):
        installer.plan(source_of(f"{address}/sky/.git"))
