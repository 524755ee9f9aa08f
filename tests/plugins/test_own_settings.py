"""Settings and flags of plugins: one record each, checked everywhere, told to their plugin, harmless when wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gradio as gr
import pytest
from fastapi.testclient import TestClient

from webui.api.app import build_app
from webui.cli import _parser
from webui.engine.engine import Engine
from webui.engine.executor import Executor
from webui.engine.options import DEFAULTS
from webui.engine.plugin_settings import open_options, own_settings
from webui.errors import RequestError
from webui.plugins.own_flags import said
from webui.settings import Settings
from webui.ui.app import build_page
from webui.ui.gallery_settings import GallerySettings

EXTENSION = """
from dataclasses import dataclass
from typing import Literal
from webui.hooks import hookimpl
from webui.option_boxes import option
from webui.plugins.own_settings import CliOptions, SettingsSection

@dataclass(frozen=True)
class Own:
    folder: str = option("", "Folder")
    count: int = option(3, "How many", low=1, high=10, step=1)
    share: float = option(0.5, "Share", low=0, high=1)
    loud: bool = option(False, "Loud")
    colour: Literal["red", "green"] = option("red", "Colour")

    def __post_init__(self):
        if self.loud and self.count > 5:
            from webui.errors import RequestError
            raise RequestError("Loud goes with at most 5.")

@hookimpl
def register_settings():
    return [SettingsSection(name="own", label="My own", options=Own, guarded=("folder",))]

@hookimpl
def register_cli_options():
    return [CliOptions(name="own", label="my own flags", options=Own)]
"""


class Asleep:
    def status(self) -> str:
        return "ready"

    def close(self) -> None: ...


class Place:
    """An engine whose extension a test may write before; :meth:`again` is the next start."""

    def __init__(self, folder: Path) -> None:
        folders = {f"{name}_dir": folder / name for name in ("models", "outputs", "extensions")}
        (folder / "extensions").mkdir()
        self.settings = Settings(**folders)
        self.file = self.settings.state_dir / "config.json"
        self._engines: list[Engine] = []

    def install(self, code: str = EXTENSION) -> None:
        (self.settings.extensions_dir / "mine.py").write_text(code, "utf-8")

    def again(self) -> Engine:
        self._engines.append(Engine.create(self.settings, cast(Executor, Asleep())))
        return self._engines[-1]

    def close(self) -> None:
        for engine in self._engines:
            engine.store.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def record(engine: Engine) -> Any:
    return engine.own_settings.settings_of("own")


def test_a_section_is_kept_checked_and_told(place: Place) -> None:
    place.install()
    engine = place.again()
    assert engine.problems() == []
    assert (record(engine).count, record(engine).colour) == (3, "red")
    engine.options.change({"own_count": 4, "own_colour": "green", "jpeg_quality": 70})
    assert json.loads(place.file.read_text()) == {"jpeg_quality": 70, "own_count": 4, "own_colour": "green"}
    assert (record(engine).count, record(place.again()).count) == (4, 4)
    for wrong in ({"own_count": 11}, {"own_count": 2.5}, {"own_colour": "blue"}, {"own_loud": "yes"}):
        with pytest.raises(RequestError, match="My own"):
            engine.options.change({"jpeg_quality": 50, **wrong})
    with pytest.raises(RequestError, match="at most 5"):
        engine.options.change({"own_loud": True, "own_count": 6})
    assert engine.options.snapshot()["jpeg_quality"] == 70 and record(engine).count == 4
    engine.options.reset("own")
    assert record(engine).count == 3 and json.loads(place.file.read_text()) == {"jpeg_quality": 70}


def test_a_job_cannot_change_them(place: Place) -> None:
    place.install()
    options = place.again().options
    assert options.snapshot({"own_count": 9})["own_count"] == 3


def test_values_of_another_version_are_left_out(place: Place) -> None:
    place.install()
    place.file.parent.mkdir(parents=True)
    place.file.write_text(json.dumps({"own_count": 99, "own_share": 0.25, "own_gone": 1, "own_loud": True}))
    engine = place.again()
    assert (record(engine).count, record(engine).share, record(engine).loud) == (3, 0.25, True)
    engine.options.change({"own_share": 0.5})
    assert json.loads(place.file.read_text()) == {"own_share": 0.5, "own_gone": 1, "own_loud": True}


def test_without_its_extension_what_was_set_stays_in_the_file(place: Place) -> None:
    place.install()
    place.again().options.change({"own_count": 5})
    (place.settings.extensions_dir / "mine.py").unlink()
    engine = place.again()
    engine.options.change({"jpeg_quality": 71})
    assert "own_count" not in engine.options.snapshot()
    place.install()
    assert record(place.again()).count == 5


def test_the_worker_sees_them_as_they_are_when_a_job_begins(place: Place) -> None:
    place.install()
    engine = place.again()
    engine.options.change({"own_count": 7})
    worker = own_settings(open_options(engine.settings, engine.plugins), engine.settings, engine.plugins)
    engine.options.change({"own_count": 8})
    assert worker.settings_of("own").count == 7
    with pytest.raises(RequestError, match='did you mean "own"'):
        worker.settings_of("owm")


def test_both_apis_read_and_write_them_but_for_what_is_guarded(place: Place) -> None:
    place.install()
    engine = place.again()
    client = TestClient(build_app(engine))
    told = {section["name"]: section for section in client.get("/api/v1/settings").json()}
    assert set(told) == {"gallery", "own"}
    assert told["own"]["values"]["count"] == 3 and told["own"]["guarded"] == ["folder"]
    assert told["own"]["options"]["properties"]["count"]["maximum"] == 10
    assert client.get("/sdapi/v1/options").json()["own_count"] == 3
    assert client.post("/sdapi/v1/options", json={"own_count": 4, "own_folder": "/etc"}).status_code == 200
    assert (record(engine).count, record(engine).folder) == (4, "")
    assert client.patch("/api/v1/settings/own", json={"loud": True}).json()["values"]["loud"] is True
    for body, status in (({"folder": "/etc"}, 422), ({"none": 1}, 422), ({"count": 0}, 422), ({"count": "4"}, 422)):
        answer = client.patch("/api/v1/settings/own", json=body)
        assert answer.status_code == status and answer.json()["error"]
    assert client.patch("/api/v1/settings/none", json={}).status_code == 422
    assert client.delete("/api/v1/settings/own").status_code == 422, "it holds what is guarded"
    assert client.patch("/api/v1/settings/gallery", json={"columns": 5}).json()["values"]["columns"] == 5
    assert client.delete("/api/v1/settings/gallery").json()["values"]["columns"] == GallerySettings().columns
    assert client.post("/sdapi/v1/options", json={"own_count": 77}).status_code == 422
    assert (record(engine).count, record(engine).folder) == (4, "")


WRONG = {
    "name='Own'": "small letter",
    "name='gallery'": "gallery_settings",
    "name='jpeg', options=Quality": "jpeg_quality",
    "options=int": "no dataclass",
    "options=Bare": "no default",
    "options=Listed": "flag, number or text",
    "options=Drawn": "picture",
    "options=Odd": "defaults do not fit",
    "guarded=('nothing',)": "nothing",
}
MORE = """
from webui.option_boxes import Kind
@dataclass(frozen=True)
class Quality:
    quality: int = option(1, "Quality")
@dataclass(frozen=True)
class Bare:
    count: int
@dataclass(frozen=True)
class Listed:
    names: tuple[str, ...] = ()
@dataclass(frozen=True)
class Drawn:
    image: str = option("", "Picture", kind=Kind.PICTURE)
@dataclass(frozen=True)
class Odd:
    count: int = 1
    def __post_init__(self):
        raise ValueError("odd")
@hookimpl
def register_settings():
    return [SettingsSection(**{**dict(name="own", label="Own", options=Own), **dict(WRONG)})]
"""


@pytest.mark.parametrize("wrong", WRONG)
def test_a_section_that_cannot_be_is_named_and_left_out(place: Place, wrong: str) -> None:
    code = EXTENSION[: EXTENSION.index("@hookimpl\ndef register_settings")] + MORE.replace("WRONG", wrong)
    place.install(code)
    engine = place.again()
    assert [section.name for section in engine.options.sections] == ["gallery"]
    (problem,) = engine.problems()
    assert "extension mine" in problem and WRONG[wrong] in problem
    assert set(engine.options.snapshot()) - set(DEFAULTS) == {"gallery_columns", "gallery_open_first"}


def test_the_settings_tab_applies_and_resets(place: Place) -> None:
    place.install()
    engine = place.again()
    page = build_page(engine)
    named = {block.elem_id: block for block in page.blocks.values() if getattr(block, "elem_id", None)}
    assert "tab_settings" in named and isinstance(named["setting_own_count"], gr.Slider)
    assert isinstance(named["setting_own_colour"], gr.Radio) and isinstance(named["setting_own_loud"], gr.Checkbox)

    def event(button: str) -> Any:
        (found,) = [fn.fn for fn in page.fns.values() if (named[button]._id, "click") in fn.targets]
        return found

    *values, told = event("settings_own_apply")("/srv", 4.0, 0.25, True, "green")
    assert values == ["/srv", 4, 0.25, True, "green"] and told["good"]
    assert record(engine).folder == "/srv"
    *_, told = event("settings_own_apply")("/srv", 9, 0.25, True, "green")
    assert told["text"] == "Loud goes with at most 5." and record(engine).count == 4
    *_, told = event("settings_own_apply")("/srv", None, 0.25, True, "green")
    assert "How many is empty" in told["text"]
    *values, told = event("settings_own_reset")()
    assert values == ["", 3, 0.5, False, "red"] and record(engine).folder == ""
    assert json.loads(place.file.read_text()) == {}


def folders(place: Place) -> list[str]:
    names = ("models", "outputs", "extensions")
    return [word for name in names for word in (f"--{name}-dir", str(getattr(place.settings, f"{name}_dir")))]


def test_flags_reach_the_extension_in_both_processes(place: Place) -> None:
    place.install()
    arguments = ["serve", *folders(place), "--own-count", "4", "--own-loud", "--own-colour=green", "--server-end", "9"]
    given = said(_parser(arguments).parse_args(arguments))
    assert given == {"own": {"count": 4, "loud": True, "colour": "green"}, "server": {"end": 9}}
    from dataclasses import replace

    place.settings = replace(place.settings, extension_flags=given)
    assert Settings.from_dict(json.loads(json.dumps(place.settings.to_dict()))) == place.settings, "for the worker"
    engine = place.again()
    own = engine.own_settings.cli_of("own")
    assert (own.count, own.loud, own.colour, own.share) == (4, True, "green", 0.5)
    assert engine.own_settings.cli_of("server").end == 9
    with pytest.raises(AttributeError):
        own.count = 5


def test_help_shows_them_in_a_group_of_their_own(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.install()
    arguments = ["serve", *folders(place), "--help"]
    with pytest.raises(SystemExit):
        _parser(arguments).parse_args(arguments)
    told = capsys.readouterr().out
    own = told.partition("\nmy own flags:\n")[2]
    assert "--own-count N" in own and "How many, 1 to 10 (default: 3)" in " ".join(own.split())
    assert "--no-own-loud" in own and "--server-keep-alive N" in told.partition("\nthe server:\n")[2]


@pytest.mark.parametrize("flag", ["--own-count=x", "--own-colour=blue", "--own-none=1"])
def test_a_flag_that_is_none_is_refused(place: Place, flag: str) -> None:
    place.install()
    arguments = ["serve", *folders(place), flag]
    with pytest.raises(SystemExit):
        _parser(arguments).parse_args(arguments)


def test_a_value_out_of_range_is_refused_in_a_sentence(place: Place) -> None:
    from dataclasses import replace

    place.install()
    place.settings = replace(place.settings, extension_flags={"own": {"count": 0}})
    with pytest.raises(RequestError, match="--own: How many"):
        place.again()


def test_flags_that_exist_are_left_out(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    taken = EXTENSION.replace('CliOptions(name="own"', 'CliOptions(name="allow"').replace(
        "    folder: str", "    host: str"
    )
    place.install(taken.replace('guarded=("folder",)', "guarded=()"))
    arguments = ["serve", *folders(place), "--help"]
    with pytest.raises(SystemExit):
        _parser(arguments).parse_args(arguments)
    assert any("--allow-host has a meaning already" in message for message in caplog.messages)
