"""How far a job is, and the rough pictures that are shown meanwhile."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from webui.engine.executor import Report, Tell
from webui.engine.jobs import Progress
from webui.latents.preview import preview_jpeg
from webui.model import Model
from webui.pipeline.moments import Stepped

PREVIEW_INTERVAL_S = 0.4
PREVIEW_SHARE = 0.03
"""Previews may take this share of the job's time; a slower preview comes less often."""


@dataclass
class Clock:
    """Progress of a job in model steps, with the time left from the steps of this job so far."""

    pictures: int
    done_before: int
    steps_per_picture: int = 0
    at: Progress = field(default_factory=Progress)
    _first_step: float | None = None
    _steps_timed: int = 0

    def stepped(self, moment: Stepped, made: int) -> Progress:
        """The progress after a step; ``made`` pictures were finished before this group."""
        now = time.monotonic()
        together = len(moment.indices)
        self.steps_per_picture = moment.steps
        total = moment.steps * self.pictures
        done = moment.steps * made + moment.step * together
        if self._first_step is None:
            self._first_step = now
        else:
            self._steps_timed += together
        eta = (total - done) * (now - self._first_step) / self._steps_timed if self._steps_timed else None
        return self._note(step=done, steps=total, picture=made + 1, eta_s=eta, phase="sampling")

    def phase(self, phase: str) -> Progress:
        """The same progress in another phase."""
        return self._note(phase=phase)

    def preview(self) -> Progress:
        """The progress with one more preview."""
        return self._note(preview=self.at.preview + 1)

    def _note(self, **changes: Any) -> Progress:
        self.at = replace(self.at, pictures=self.pictures, **changes)
        return self.at


@dataclass
class Previews:
    """Sends a rough picture now and then, within its share of a job's time from its first step on."""

    tell: Tell
    clock: Clock
    model: Model
    _spent_s: float = 0.0
    _began: float | None = None
    _last: float = 0.0

    def offer(self, moment: Stepped) -> None:
        """Send a preview of this step if it is time for one; the last step needs none."""
        now = time.monotonic()
        if self._began is None:
            self._began = self._last = now
        allowed = PREVIEW_SHARE * (now - self._began)
        if moment.step == moment.steps or now - self._last < PREVIEW_INTERVAL_S or self._spent_s > allowed:
            return
        jpeg = preview_jpeg(moment.denoised, self.model)
        self.tell(Report("preview", asdict(self.clock.preview()), jpeg))
        self._last = time.monotonic()
        self._spent_s += self._last - now
