"""The application in a folder of its own, with a tiny random model and whatever extensions a test installs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from webui.engine.engine import Engine
from webui.engine.executor import Order, Report, Tell
from webui.engine.runner import Control, Runner
from webui.images.pixels import read_pixels
from webui.metadata.files import read_picture_texts
from webui.metadata.recipe import Recipe
from webui.metadata.verdict import Verdict
from webui.request import GenerationRequest
from webui.result import Pixels
from webui.settings import Settings

PLAIN: dict[str, Any] = {
    "prompt": "a red apple",
    "seed": 7,
    "size": {"width": 64, "height": 64},
    "sampling": {"sampler": "Euler", "steps": 2, "cfg_scale": 3.0},
}


@dataclass
class Done:
    """What came of a job: its reports and the files it wrote."""

    folder: Path
    reports: list[Report] = field(default_factory=list)

    @property
    def ending(self) -> Report:
        return self.reports[-1]

    @property
    def files(self) -> list[Path]:
        return [self.folder / report.data["path"] for report in self.reports if report.kind == "picture"]

    @property
    def file(self) -> Path:
        assert self.ending.kind == "done", self.ending.data
        (file,) = self.files
        return file

    @property
    def pixels(self) -> Pixels:
        return read_pixels(self.file.read_bytes())

    @property
    def parameters(self) -> str:
        return read_picture_texts(self.file.read_bytes())["parameters"]

    @property
    def recipe(self) -> Recipe:
        return Recipe.from_json(read_picture_texts(self.file.read_bytes())["recipe"])


class NoWorker:
    """An executor that computes nothing: the engine of a test that asks only the server's side."""

    def run(self, order: Order, tell: Tell) -> None:
        raise NotImplementedError

    def interrupt(self, job: str) -> None: ...

    def skip(self, job: str) -> None: ...

    def warm_up(self) -> None: ...

    def status(self) -> str:
        return "ready"

    def close(self) -> None: ...


class App:
    """``install`` before the first use of ``runner`` (the worker's side) or ``engine`` (the server's)."""

    def __init__(self, folder: Path, models: Path) -> None:
        self.settings = Settings(
            models_dir=models,
            outputs_dir=folder / "outputs",
            extensions_dir=folder / "extensions",
            device="cpu",
            precision="fp32",
            threads=1,
        )
        self.settings.extensions_dir.mkdir()
        self._runner: Runner | None = None
        self._engine: Engine | None = None

    def install(self, name: str, code: str) -> None:
        path = self.settings.extensions_dir / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code, "utf-8")

    @property
    def runner(self) -> Runner:
        self._runner = self._runner or Runner.start(self.settings)
        return self._runner

    @property
    def engine(self) -> Engine:
        self._engine = self._engine or Engine.create(self.settings, NoWorker())
        return self._engine

    def make(self, **changes: Any) -> Done:
        """Run a job as the worker process does."""
        done = Done(self.settings.outputs_dir)
        request = GenerationRequest.from_dict({**PLAIN, **changes})
        self.runner.run(Order(job="1", kind="generate", request=request.to_dict()), done.reports.append, Control())
        return done

    def reproduce(self, file: Path) -> Verdict:
        return self.runner.reproduce(file.read_bytes(), lambda report: None, Control())

    def started_anew(self) -> App:
        """The same application after a restart, with what is installed by now."""
        self._runner = None
        return self

    def close(self) -> None:
        if self._engine is not None:
            self._engine.store.close()
