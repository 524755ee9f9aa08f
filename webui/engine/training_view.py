"""What a training shows of itself, read from the folder of its run: losses, samples, left-out files, the file made."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from webui.engine.jobs import TRAINING, Job
from webui.errors import NotFoundError, OutputError, RequestError

FOLDER = "training"
REQUEST = "request.json"
STATE = "state.safetensors"
LEFT_OUT = "left-out.json"
LOSSES = "losses.csv"
SAMPLES = "samples"
MAX_POINTS = 500
SMOOTHED_OVER = 20
"""The smoothed curve weights the points behind with a time constant of this fraction of the run."""
KEPT_LOGS = 8


class LossPoint(NamedTuple):
    """The loss around a step: the mean over the steps it stands for, the smoothed loss, and the learning rate."""

    step: int
    loss: float
    smooth: float
    rate: float


@dataclass(frozen=True, kw_only=True)
class TrainingView:
    """A training as it stands.

    ``losses`` are at most 500 points over the whole run.  ``samples`` are the steps after which samples were drawn,
    ``newest_sample`` the path of the newest picture.  ``left_out`` are sentences about files that nothing was learnt
    from.  ``file`` is the finished model file, ``folder`` that of the run, both absolute.
    """

    job: Job
    folder: str
    losses: tuple[LossPoint, ...] = ()
    samples: tuple[int, ...] = ()
    newest_sample: str | None = None
    left_out: tuple[str, ...] = ()
    file: str | None = None

    @property
    def request(self) -> Mapping[str, Any]:
        """What was asked, ``TrainingRequest.to_dict()``."""
        return self.job.request

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        names = ("folder", "samples", "newest_sample", "left_out", "file")
        plain = {name: getattr(self, name) for name in names}
        losses = [point._asdict() for point in self.losses]
        return {"job": self.job.to_dict(), "request": dict(self.request), **plain, "losses": losses}


def run_folder(outputs_dir: Path, name: str, job_id: str) -> Path:
    """The folder of a run."""
    return outputs_dir / FOLDER / f"{name}-{job_id[:8]}"


@dataclass
class LossLog:
    """The losses of a run, read on from where the last reading ended.

    A run that goes on writes its file anew without the steps that were lost; that is seen by the last line read.
    """

    path: Path
    _names: list[str] = field(default_factory=list)
    _rows: list[tuple[int, float, float]] = field(default_factory=list)
    _last_line: bytes = b""
    _end: int = 0

    def read(self) -> Sequence[tuple[int, float, float]]:
        """(step, loss, rate) of every step so far whose loss is a number.  Raises OutputError."""
        try:
            with self.path.open("rb") as file:
                self._read(file)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise OutputError(f"{self.path} cannot be read: {error.strerror}.") from error
        return self._rows

    def _read(self, file: Any) -> None:
        file.seek(self._end - len(self._last_line))
        if file.read(len(self._last_line)) != self._last_line:
            self._names, self._rows, self._last_line, self._end = [], [], b"", 0
            file.seek(0)
        for line in file:
            if not line.endswith(b"\n"):
                return  # being written
            self._take(line.decode("utf-8", "replace").strip().split(","))
            self._end += len(line)
            self._last_line = line

    def _take(self, values: list[str]) -> None:
        if not self._names:
            self._names = values
            return
        row = dict(zip(self._names, values, strict=False))
        try:
            step, loss, rate = int(row["step"]), float(row["loss"]), float(row["rate"])
        except (KeyError, ValueError):
            return  # a line that was cut
        if math.isfinite(loss) and math.isfinite(rate):
            self._rows.append((step, loss, rate))


def curve(rows: Sequence[tuple[int, float, float]], most: int = MAX_POINTS) -> tuple[LossPoint, ...]:
    """The losses in at most ``most`` points, each the mean of equally many steps, with a smoothed series.

    Smoothed as an exponential moving average that is corrected for its beginning (Kingma and Ba 2015,
    arXiv:1412.6980, section 3).
    """
    if not rows:
        return ()
    together = -(-len(rows) // most)
    decay = 1 - min(1.0, max(SMOOTHED_OVER / len(rows), 0.02) * together)
    points, average, weight = [], 0.0, 0.0
    for start in range(0, len(rows), together):
        group = rows[start : start + together]
        loss = sum(row[1] for row in group) / len(group)
        average = decay * average + (1 - decay) * loss
        weight = decay * weight + (1 - decay)
        points.append(LossPoint(group[-1][0], loss, average / weight, group[-1][2]))
    return tuple(points)


@dataclass
class TrainingViews:
    """Views of the trainings below an outputs folder."""

    outputs_dir: Path
    _logs: OrderedDict[str, LossLog] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def view(self, job: Job) -> TrainingView:
        """What a training shows now.  Raises RequestError for a job that is none."""
        folder = self._folder(job)
        samples = sorted(int(path.stem) for path in (folder / SAMPLES).glob("*.png") if path.stem.isdigit())
        return TrainingView(
            job=job,
            folder=str(folder),
            losses=self._losses(job.id, folder),
            samples=tuple(samples),
            newest_sample=str(_sample(folder, samples[-1])) if samples else None,
            left_out=_sentences(folder / LEFT_OUT),
            file=job.files[-1] if job.files else None,
        )

    def sample(self, job: Job, step: int) -> Path:
        """The picture with the samples after a step.  Raises NotFoundError."""
        path = _sample(self._folder(job), step)
        if not path.is_file():
            raise NotFoundError(f"There are no samples of step {step}.")
        return path

    def _folder(self, job: Job) -> Path:
        if job.kind != TRAINING:
            raise RequestError(f"Job {job.id} is no training.")
        return run_folder(self.outputs_dir, str(job.request["name"]), job.id)

    def _losses(self, job_id: str, folder: Path) -> tuple[LossPoint, ...]:
        with self._lock:
            log = self._logs.setdefault(job_id, LossLog(folder / LOSSES))
            self._logs.move_to_end(job_id)
            while len(self._logs) > KEPT_LOGS:
                self._logs.popitem(last=False)
            return curve(log.read())


def _sample(folder: Path, step: int) -> Path:
    return folder / SAMPLES / f"{step:06d}.png"


def _sentences(path: Path) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(path.read_text("utf-8"))))
    except (OSError, ValueError):
        return ()
