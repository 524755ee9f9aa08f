"""Extensions that are new are loaded in a process of their own first, so that none of them can end the server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_model import tiny_settings

from webui.engine import trial
from webui.engine.engine import Engine
from webui.plugins.manager import SERVER_PACKAGES
from webui.settings import Settings

HOOK = "import os, time\nfrom webui.hooks import hookimpl\n@hookimpl\n"
COUNTS = "from pathlib import Path\nwith Path({!r}).open('a') as file:\n    file.write('x')\n"


class Idle:
    """An executor that is asked nothing."""

    def close(self) -> None: ...


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path) -> Settings:
    settings = replace(tiny_settings(tmp_path, tiny_checkpoint), extension_start_s=1.0)
    settings.extensions_dir.mkdir()
    settings.state_dir.mkdir(parents=True)
    return settings


def install(settings: Settings, **extensions: str) -> None:
    for name, code in extensions.items():
        (settings.extensions_dir / f"{name}.py").write_text(code, "utf-8")


def test_those_that_end_a_process_are_named_and_the_server_starts(settings: Settings) -> None:
    install(
        settings,
        dies="import os\nos._exit(7)\n",
        crashes="import ctypes\nctypes.string_at(0)\n",
        kills="import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
        registers=HOOK + "def register_samplers():\n    os._exit(8)\n",
        holds="sum(range(10 ** 15))\n",
        loops="while True:\n    pass\n",
        fine="__version__ = '1'\n",
        raises="1 / 0\n",
    )
    engine = Engine.create(settings, Idle(), unloadable=trial.unloadable(settings, SERVER_PACKAGES))
    problems = engine.problems()
    engine.store.close()
    for name, said in {
        "dies": "ended with code 7 within its import",
        "crashes": "was ended by signal 11 within its import",
        "kills": "was ended by signal 9 within its import",
        "registers": "ended with code 8 within its register_samplers (registers.py, line 3)",
        "holds": "did not come back within its import",
        "loops": "its import took more than 1 s and was ended (loops.py, line",
        "raises": "ZeroDivisionError",
    }.items():
        assert [one for one in problems if f"extension {name} " in one and said in one], (name, problems)
    states = {one["name"]: one["state"] for one in engine.extensions_health()}
    assert states.pop("fine") == "on"
    assert set(states.values()) == {"left out"}


def test_what_went_well_is_not_tried_again(settings: Settings, tmp_path: Path) -> None:
    count = tmp_path / "count"
    install(settings, fine=COUNTS.format(str(count)))
    for _ in range(2):
        assert trial.unloadable(settings, SERVER_PACKAGES) == {}
    assert count.read_text() == "x"
    install(settings, fine=COUNTS.format(str(count)) + "# changed\n")
    assert trial.unloadable(settings, SERVER_PACKAGES) == {}
    assert count.read_text() == "xx"


def test_what_went_wrong_is_tried_again_until_it_works(settings: Settings) -> None:
    install(settings, dies="import os\nos._exit(7)\n")
    for _ in range(2):
        assert set(trial.unloadable(settings, SERVER_PACKAGES)) == {"dies"}
    install(settings, dies="")
    assert trial.unloadable(settings, SERVER_PACKAGES) == {}
    assert set(json.loads((settings.state_dir / trial.FILE).read_bytes())) == {"dies"}


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff"])
def test_a_damaged_memory_tries_all_again(settings: Settings, content: bytes) -> None:
    (settings.state_dir / trial.FILE).write_bytes(content)
    install(settings, dies="import os\nos._exit(7)\n")
    assert set(trial.unloadable(settings, SERVER_PACKAGES)) == {"dies"}


def test_nothing_is_tried_without_extensions(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: object, **named: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(trial.subprocess, "Popen", started)
    assert trial.unloadable(settings, SERVER_PACKAGES) == {}
    install(settings, dies="import os\nos._exit(7)\n")
    assert trial.unloadable(replace(settings, load_extensions=False), SERVER_PACKAGES) == {}
    assert trial.unloadable(replace(settings, extensions_off=("dies",)), SERVER_PACKAGES) == {}
