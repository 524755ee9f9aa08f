"""One engine, one web app with the API and the page on it, behind one guard."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import urllib.request
import webbrowser
from pathlib import Path

from webui.engine.claim import claim
from webui.engine.executor import WorkerProcess
from webui.errors import PictureError, RequestError
from webui.guard import Guard
from webui.server_flags import NAME as SERVER
from webui.server_flags import ServerFlags
from webui.settings import LOOPBACK, Settings

log = logging.getLogger(__name__)


def serve(settings: Settings, *, open_browser: bool) -> int:
    """Run until interrupted.  Raises RequestError when the address cannot be used."""
    if settings.password == "":
        raise RequestError("The password is empty; choose one, or leave --password out to serve this computer alone.")
    if settings.host not in LOOPBACK and settings.password is None:
        raise RequestError(
            f"--host {settings.host} would let everybody on the network in; set a password with --password, "
            "or leave --host out to serve this computer alone."
        )
    _check_port(settings)
    claimed = claim(settings.state_dir)
    try:
        return _serve(settings, open_browser=open_browser)
    finally:
        claimed.release()


def _serve(settings: Settings, *, open_browser: bool) -> int:
    uploads = settings.state_dir / "uploads"
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(uploads),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    executor = WorkerProcess(settings)  # before all else: torch is imported there while Gradio is imported here
    try:
        _empty(uploads)

        import uvicorn

        from webui.api.app import build_app
        from webui.engine.engine import Engine
        from webui.engine.trial import unloadable
        from webui.plugins.manager import SERVER_PACKAGES
        from webui.ui.app import mount

        _refuse_downloads()
        engine = Engine.create(settings, executor, unloadable=unloadable(settings, SERVER_PACKAGES))
        app = build_app(engine)
        mount(app, engine)
        flags: ServerFlags = engine.own_settings.cli_of(SERVER)
        guard = Guard(
            app=app,
            hosts=tuple(name.lower() for name in (*LOOPBACK, settings.host, *settings.allowed_hosts)),
            outputs_root=settings.outputs_dir.resolve(),
            uploads_root=uploads.resolve(),
            password=settings.password,
            any_address=settings.host in ("0.0.0.0", "::") and settings.password is not None,
            extension_paths=app.state.extension_paths,
        )
        engine.start()
        address = f"http://{_shown(settings.host)}:{settings.port}/"
        threading.Thread(target=_announce, args=(address, open_browser), name="announce", daemon=True).start()
        _end_orderly_on_sigterm()
        try:
            uvicorn.run(
                guard,
                host=settings.host,
                port=settings.port,
                log_level="warning",
                timeout_graceful_shutdown=flags.end,
                timeout_keep_alive=flags.keep_alive,
                limit_concurrency=flags.connections or None,
                server_header=False,
            )
        finally:
            engine.close()
    finally:
        executor.close()
    return 0


def _end_orderly_on_sigterm() -> None:
    """Let a supervisor's SIGTERM end the program through its ``finally`` blocks, so that trainings are saved.

    uvicorn stops serving, then raises the signal again for the handler that was there before: this one.
    """

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)


def _refuse_downloads() -> None:
    """Keep Gradio from fetching what a file record of its own API names by address; it has no setting for that."""
    from gradio import processing_utils

    async def refused(url: str) -> None:
        raise PictureError("Pictures are uploaded; this server fetches none from an address.")

    processing_utils.async_ssrf_protected_get = refused


def _announce(address: str, open_browser: bool) -> None:
    """Print the address when it answers, and open the browser on it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{address}health", timeout=5):
                break
        except OSError:
            time.sleep(0.1)
    print(f"Running on {address}  (Ctrl+C stops it)", flush=True)
    if open_browser:
        webbrowser.open(address)


def _check_port(settings: Settings) -> None:
    if not 0 < settings.port < 65536:
        raise RequestError(f"--port is {settings.port}; it must be from 1 to 65535.")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        if os.name == "posix":  # on Windows the option lets two programs share a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise RequestError(
                f"The address {settings.host}:{settings.port} cannot be used ({error.strerror}); "
                "another program, or this one, may run there already. Choose another with --port."
            ) from error


def _empty(folder: Path) -> None:
    """A new, empty folder for the page's uploads; an earlier run's leftovers go."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def _shown(host: str) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"[{shown}]" if ":" in shown and not shown.startswith("[") else shown
