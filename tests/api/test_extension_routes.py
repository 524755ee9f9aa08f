"""Routes of extensions: they answer, they hide nothing, and what fails in them is one sentence that names them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import gradio as gr
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from PIL import Image
from starlette.routing import Mount
from starlette.websockets import WebSocketDisconnect

from webui.api.app import build_app
from webui.api.mounting import RESERVED
from webui.engine.engine import Engine
from webui.engine.executor import Executor
from webui.guard import Guard
from webui.settings import Settings

ROUTES = """
from webui.api.extending import ApiRoutes
from webui.hooks import hookimpl

def build(access):
    from fastapi import APIRouter, HTTPException, Response, WebSocket
    from fastapi.responses import StreamingResponse
    from webui.errors import RequestError
    router = APIRouter()
    {routes}
    return router

@hookimpl{first}
def register_api_routes():
    return [ApiRoutes(prefix={prefix!r}, build=build)]
"""
HELLO = '@router.get("/hello")\n    def hello(): return {"from": __name__.split(".")[-1]}'


class Asleep:
    """An Executor that is never asked for anything but its state."""

    def status(self) -> str:
        return "ready"

    def close(self) -> None: ...


class Place:
    """A server whose extensions a test writes before it asks for the ``client``."""

    def __init__(self, folder: Path) -> None:
        folders = {f"{name}_dir": folder / name for name in ("models", "outputs", "extensions")}
        (folder / "extensions").mkdir()
        self.settings = Settings(**folders)
        self._engine: Engine | None = None

    def install(self, name: str, prefix: Any, routes: str = HELLO, first: str = "") -> None:
        code = ROUTES.format(prefix=prefix, routes=routes, first=first)
        (self.settings.extensions_dir / f"{name}.py").write_text(code, "utf-8")

    @property
    def engine(self) -> Engine:
        self._engine = self._engine or Engine.create(self.settings, cast(Executor, Asleep()))
        return self._engine

    @property
    def client(self) -> TestClient:
        return TestClient(build_app(self.engine))  # raises what an application lets through


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    if made._engine is not None:
        made._engine.store.close()


def test_an_extension_answers_below_its_prefix(place: Place) -> None:
    place.install("control", "/controlnet")
    place.install("own", "/ext/own")
    client = place.client
    assert client.get("/controlnet/hello").json() == {"from": "control"}
    assert client.get("/ext/own/hello").json() == {"from": "own"}
    for method, path in (("GET", "/controlnet/none"), ("POST", "/controlnet/hello"), ("GET", "/ext/own/a/b")):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["error"]) == (
            404,
            f"There is no {method} {path}; /docs lists what there is.",
        )
    assert place.engine.problems() == []


@pytest.mark.parametrize(
    "prefix",
    [
        *("/api/v1/jobs", "/api/v2", "/sdapi/v1/mine", "/docs", "/gradio_api", "/config", "/health", "/theme.css"),
        *(
            "/ext",
            "/ext/other",
            "/ext/shadowy",
            "",
            "/",
            "controlnet",
            "/a/",
            "/a//b",
            "/a/../b",
            "/{any:path}",
            "/a b",
        ),
        *("/a b", "/.well-known", "/file=x", 7),
    ],
)
def test_a_prefix_of_the_program_is_refused(place: Place, prefix: Any) -> None:
    place.install("shadow", prefix, first="(tryfirst=True)")
    answer = place.client.get("/health")
    assert answer.json()["status"] == "ok"
    (problem,) = place.engine.problems()
    assert problem.startswith("extension shadow: register_api_routes")


def test_built_in_routes_stay_whatever_comes_first(place: Place) -> None:
    place.install("shadow", "/api/v1/inputs", first="(tryfirst=True)", routes='@router.post("")\n    def a(): return 1')
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    assert "id" in place.client.post("/api/v1/inputs", content=picture.getvalue()).json()
    (problem,) = place.engine.problems()
    assert "webui.api.routers.inputs" in problem and "extension shadow" in problem


@pytest.mark.parametrize("second", ["/one", "/one/deeper", "/on"])
def test_of_two_extensions_that_overlap_both_are_named(place: Place, second: str) -> None:
    place.install("a", "/one")
    place.install("b", second)
    client = place.client
    assert client.get("/one/hello").json() == {"from": "a"}
    told = " ".join(place.engine.problems())
    if second == "/on":
        assert told == "" and client.get("/on/hello").json() == {"from": "b"}
    else:
        assert "extension a" in told and "extension b" in told


@pytest.mark.parametrize(
    "routes",
    [
        'router.add_api_route("{rest:path}", lambda rest: 1)',
        'router.mount("/files", Response())',
        "router.add_event_handler('startup', lambda: None)",
        "router = None",
        "raise OSError('no weights')",
        "raise SystemExit(3)",
        '@router.get("/x")\n    def x(value: access): return 1',
        "inner = APIRouter(); inner.mount('/x', Response()); router.include_router(inner, prefix='/y')",
    ],
)
def test_a_router_that_cannot_be_is_named_and_the_server_starts(place: Place, routes: str) -> None:
    place.install("odd", "/odd", routes)
    client = place.client
    assert client.get("/health").status_code == 200
    assert client.get("/openapi.json").status_code == 200
    (problem,) = place.engine.problems()
    assert "extension odd" in problem


RAISING = """@router.get("/plain")
    def plain(): return {}["colour"]
    @router.get("/waiting")
    async def waiting(): raise ValueError("too blue")
    @router.get("/exit")
    async def leave(): raise SystemExit(1)
    @router.get("/unreadable")
    def unreadable(): return object()
    @router.get("/told")
    def told(): raise RequestError("Name a colour.")
    @router.get("/http")
    def http(): raise HTTPException(418, "A teapot.")
    @router.get("/number")
    def number(of: int): return of
    @router.get("/torn")
    def torn():
        def parts():
            yield b"half"
            raise ValueError("torn")
        return StreamingResponse(parts())"""


@pytest.mark.parametrize("path", ["plain", "waiting", "exit", "unreadable"])
def test_what_a_route_raises_is_one_sentence_that_names_the_extension(place: Place, path: str) -> None:
    place.install("blue", "/blue", RAISING)
    client = place.client
    answer = client.get(f"/blue/{path}")
    told = answer.json()
    assert (answer.status_code, told["error"]) == (500, told["detail"])
    assert f"extension blue failed at GET /blue/{path}" in told["error"]
    assert "Traceback" not in answer.text and "\n" not in told["error"]
    assert any("extension blue" in problem for problem in place.engine.problems())
    assert client.get("/api/v1/samplers").status_code == 200


def test_what_a_route_means_to_say_is_said(place: Place) -> None:
    place.install("blue", "/blue", RAISING)
    client = place.client
    for path, status, sentence in (
        ("told", 422, "Name a colour."),
        ("http", 418, "A teapot."),
        ("number?of=x", 422, "The query of is not valid"),
    ):
        answer = client.get(f"/blue/{path}")
        assert answer.status_code == status and answer.json()["error"].startswith(sentence)
        assert answer.json()["detail"] == answer.json()["error"]
    assert place.engine.problems() == []


def test_an_extension_that_is_switched_off_answers_so(place: Place) -> None:
    place.install("blue", "/blue")
    client = place.client
    journal = place.engine.plugins.journal
    journal.switch_off(journal.conducts["blue"], "The extension blue is off.")
    answer = client.get("/blue/hello")
    assert (answer.status_code, answer.json()["error"]) == (503, "The extension blue is off.")


def test_an_answer_that_breaks_off_is_cut(place: Place) -> None:
    place.install("blue", "/blue", RAISING)
    client = place.client
    with pytest.raises(RuntimeError, match="broke off"):
        client.get("/blue/torn")
    assert any("torn" in problem for problem in place.engine.problems())


def test_a_failing_web_socket_is_closed(place: Place) -> None:
    place.install("wire", "/wire", '@router.websocket("/ws")\n    async def ws(websocket: WebSocket): 1 / 0')
    with pytest.raises(WebSocketDisconnect) as closed, place.client.websocket_connect("/wire/ws"):
        pass
    assert closed.value.code == 1011
    assert any("extension wire" in problem for problem in place.engine.problems())


def test_the_guard_stands_before_it(place: Place) -> None:
    place.install("control", "/controlnet")
    app = build_app(place.engine)
    guard = Guard(
        app=cast(Any, app),
        hosts=("testserver",),
        outputs_root=place.settings.outputs_dir,
        uploads_root=place.settings.outputs_dir,
        password="secret",
        extension_paths=app.state.extension_paths,
    )
    client = TestClient(cast(Any, guard))
    assert client.get("/controlnet/hello", auth=("", "secret")).status_code == 200
    refused: list[Callable[[], Any]] = [
        lambda: client.get("/controlnet/hello"),
        lambda: client.get("/controlnet/hello", auth=("", "secret"), headers={"Host": "elsewhere"}),
        lambda: client.get("/controlnet/hello", auth=("", "secret"), headers={"Origin": "http://elsewhere"}),
    ]
    for ask, status in zip(refused, (401, 421, 403), strict=True):
        answer = ask()
        assert answer.status_code == status and answer.json()["detail"]


def test_every_path_of_the_program_and_its_page_is_reserved(place: Place) -> None:
    """A new version of gradio may answer new ones: then they join RESERVED."""
    app = build_app(place.engine)
    names = {path.split("/")[1] for path in app.openapi()["paths"]}
    names |= {route.path.split("/")[1] for route in app.routes if isinstance(route, APIRoute | Mount)}
    around = FastAPI(openapi_url=None)
    with gr.Blocks() as page:
        gr.Textbox()
    gr.mount_gradio_app(around, page, path="/", ssr_mode=False)
    (mounted,) = [route for route in around.routes if isinstance(route, Mount)]
    names |= {route.path.split("/")[1] for route in cast(Any, mounted.app).routes if hasattr(route, "path")}
    assert {"api", "sdapi", "health", "config", "theme.css"} <= names
    assert {name for name in names if name and not name.startswith("{")} <= RESERVED


def test_a_control_picture_to_look_at(place: Place) -> None:
    client = place.client
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, 16:] = 255
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    image = client.post("/api/v1/inputs", content=file.getvalue()).json()["id"]
    assert {"name": "canny"} in client.get("/api/v1/preprocessors").json()
    answer = client.post("/api/v1/preprocessors/canny", json={"image": image, "options": {"low_threshold": 50}})
    edges = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert edges.shape == (32, 32, 3) and set(np.flatnonzero(edges[16, :, 0])) <= {15, 16} and edges.any()
    for body, name, status in (
        ({"image": image}, "cany", 422),
        ({"image": "0" * 64}, "canny", 404),
        ({"image": image, "options": {"low": 1}}, "canny", 422),
    ):
        refused = client.post(f"/api/v1/preprocessors/{name}", json=body)
        assert refused.status_code == status and refused.json()["error"]
