"""Teaches: what the training process does with an order.  Turns the moments of a run into reports.

The files of a run are in a folder of its own (``training_view`` reads them there), so that whoever comes later goes on
where it stopped.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from webui.checkpoints.hashes import HashCache
from webui.checkpoints.library import Library
from webui.engine.executor import Control, Order, Report, Tell
from webui.engine.jobs import Progress
from webui.engine.outputs import write_atomically
from webui.engine.training_view import LEFT_OUT, REQUEST, STATE, run_folder
from webui.errors import DEFECT, OutputError, WebUIError
from webui.plugins.call_record import CallRecord
from webui.plugins.manager import Plugins
from webui.settings import Settings
from webui.training.moments import Exported, LeftOut, Moment, Phase, Sampled, Saved, Stepped
from webui.training.request import TrainingRequest

if TYPE_CHECKING:
    from webui.training.loop import Wishes

log = logging.getLogger(__name__)

POLL_S = 0.2
STEP_INTERVAL_S = 0.25
LOSS_INTERVAL_S = 0.5
"""Steps and losses are told at most so often."""
WAITING = "waiting for pictures to be finished"
NO_MEMORY = "There is not enough memory for this training; try a smaller batch size or picture size."


@dataclass
class Teacher:
    """Runs orders of kind "train", one after the other."""

    settings: Settings
    plugins: Plugins
    library: Library
    _problems_told: int = 0

    @classmethod
    def start(cls, settings: Settings, record: CallRecord | None = None) -> Teacher:
        """Load the plugins; ``record`` is told which extension is called."""
        plugins = Plugins.start(settings, record=record)
        hashes = HashCache(settings.state_dir / "hashes.sqlite3")
        library = Library(settings.models_dir, hashes, plugins.formats, plugins.extra_network_kinds.file_kinds)
        return cls(settings, plugins, library)

    def warm_up(self) -> None:
        """Nothing is loaded before there is an order."""

    def close(self) -> None:
        """Nobody wants to hear of it here."""

    def run(self, order: Order, tell: Tell, control: Control) -> None:
        """Teach; tells how it ends and never raises for a run's own failure."""
        try:
            ending = self._run(order, tell, control)
        except WebUIError as error:
            ending = Report("failed", {"error": str(error), "status": error.status})
        except BrokenPipeError:
            raise  # nobody listens any more
        except Exception as error:
            log.exception("training %s", order.job)
            is_memory = isinstance(error, MemoryError) or (
                isinstance(error, RuntimeError) and "memory" in str(error).lower()
            )
            sentence = NO_MEMORY if is_memory else DEFECT
            ending = Report("failed", {"error": sentence, "status": 507 if is_memory else 500})
        for sentence in self.plugins.problems[self._problems_told :]:
            tell(Report("problem", {"sentence": sentence}))
        self._problems_told = len(self.plugins.problems)
        if reports := self.plugins.report():
            tell(Report("extensions", {"reports": [report.to_dict() for report in reports]}))
        tell(ending)

    def _run(self, order: Order, tell: Tell, control: Control) -> Report:
        request = TrainingRequest.from_dict(order.request)
        folder = run_folder(self.settings.outputs_dir, request.name, order.job)
        telling = Telling(folder, tell, control, Progress(steps=request.steps))
        telling.wait()
        if control.interrupted.is_set():
            return Report("interrupted")
        with self.plugins.blaming():
            for moment in self.moments(request, folder, RunWishes(control)):
                telling.hear(moment)
        telling.flush()
        is_done = telling.exported is not None and telling.exported.stem == request.name
        return Report("done" if is_done else "interrupted")

    def moments(self, request: TrainingRequest, folder: Path, wishes: Wishes) -> Iterable[Moment]:
        """The moments of a run in its folder, which goes on with what is there."""
        from webui import device
        from webui.training.session import Place, teach

        settings = self.settings
        self.library.refresh()
        if not (folder / STATE).exists():  # what a state is of stays as it was asked, also when it is refused now
            write_request(folder, request)
        place = Place(
            folder=folder,
            library=self.library,
            kinds=self.plugins.training_kinds,
            families=self.plugins.families,
            preprocessors=self.plugins.preprocessors,
            compute=device.choose(settings.device, settings.precision, settings.threads),
        )
        return teach(request, place, wishes)


@dataclass(frozen=True)
class RunWishes:
    """What is wished of a run, as its loop asks for it."""

    control: Control

    def stop(self) -> bool:
        """Whether to end now, with a checkpoint."""
        return self.control.interrupted.is_set()

    def pause(self) -> bool:
        """Whether to wait, because pictures are made."""
        return self.control.held.is_set()


@dataclass
class Telling:
    """Reports what a run tells, no more often than a person can read.  ``exported`` is the newest file it made."""

    folder: Path
    tell: Tell
    control: Control
    progress: Progress
    exported: Path | None = None
    _points: list[tuple[int, float, float]] = field(default_factory=list)
    _step_told: float = 0.0
    _points_told: float = 0.0

    def hear(self, moment: Moment) -> None:
        """Report a moment; before whatever is no step, wait while pictures are made."""
        if isinstance(moment, Stepped):
            self._stepped(moment)
        elif isinstance(moment, Phase):
            self.wait()
            self._note(phase=moment.text)
        elif isinstance(moment, LeftOut):
            write_json(self.folder / LEFT_OUT, list(moment.sentences))
        elif isinstance(moment, Sampled):
            self.flush()
            self.tell(Report("sample", {"step": moment.step}))
        elif isinstance(moment, Saved):
            self.flush()
            self.tell(Report("saved", {"step": moment.step}))
        elif isinstance(moment, Exported):
            self.exported = moment.path
            self.tell(Report("exported", {"path": str(moment.path.resolve())}))

    def wait(self) -> None:
        """Return when no pictures are being made, or when it is wished to stop."""
        if self.control.held.is_set():
            self.flush()
            self._note(phase=WAITING, eta_s=None)
        while self.control.held.is_set() and not self.control.interrupted.is_set():
            time.sleep(POLL_S)

    def flush(self) -> None:
        """Report the steps that were not told yet."""
        if self._points:
            self.tell(Report("loss", {"points": self._points}))
            self._points, self._points_told = [], time.monotonic()
            self.tell(Report("progress", asdict(self.progress)))

    def _stepped(self, moment: Stepped) -> None:
        now = time.monotonic()
        self._points.append((moment.step, moment.losses["loss"], moment.rate))
        self.progress = replace(
            self.progress, step=moment.step, steps=moment.steps, eta_s=moment.eta_s, phase="training"
        )
        if now - self._points_told >= LOSS_INTERVAL_S:
            self.flush()
            self._step_told = now
        elif now - self._step_told >= STEP_INTERVAL_S:
            self.tell(Report("progress", asdict(self.progress)))
            self._step_told = now

    def _note(self, *, phase: str, eta_s: float | None = None) -> None:
        self.progress = replace(self.progress, phase=phase, eta_s=eta_s)
        self.tell(Report("progress", asdict(self.progress)))


def new_run_folder(outputs_dir: Path, name: str) -> Path:
    """The folder of a run that is no job of a server."""
    return run_folder(outputs_dir, name, uuid.uuid4().hex)


def write_request(folder: Path, request: TrainingRequest) -> None:
    """Put what was asked into the run's folder, for a person and for going on.  Raises OutputError."""
    write_json(folder / REQUEST, request.to_dict())


def write_json(path: Path, value: Mapping[str, object] | list[str]) -> None:
    """Write a file of a run, whole or not at all.  Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False).encode())
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
