"""Which file the tab opens: an output of the program, or what lies on the box; never a path that a client names."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_model import tiny_request

from webui.engine.engine import Engine
from webui.engine.executor import Control
from webui.engine.runner import Runner
from webui.settings import Settings


@pytest.fixture
def picture(settings: Settings) -> Path:
    (path,) = Runner.start(settings).generate(tiny_request(), lambda report: None, Control())
    return path


def begun(xray: SimpleNamespace, engine: Engine, chosen: str, picture: Path | None) -> dict[str, Any]:
    """What the tab's Live is told."""
    tab = xray.tab.XRayTab(SimpleNamespace(engine=engine))
    told: dict[str, Any] = tab._begin(chosen, str(picture) if picture else None, [], 2, "Quick")[0]
    return told


def test_the_dropped_picture_is_made_again(xray: SimpleNamespace, engine: Engine, picture: Path) -> None:
    told = begun(xray, engine, xray.tab.DROPPED, picture)
    assert engine.job(told["job"]).request["seed"] == tiny_request().seed


@pytest.mark.parametrize("chosen", ["", "file:{path}", "{path}", "dropped:{path}", "output:{path}", "output:../{path}"])
def test_no_other_path_is_opened(
    chosen: str, xray: SimpleNamespace, engine: Engine, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path) or b"")
    assert "error" in begun(xray, engine, chosen.format(path=picture), None)
    assert opened == []
