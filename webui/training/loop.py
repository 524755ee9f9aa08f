"""The run: steps, checkpoints, samples.  Knows no kind of task; everything random in a step comes from (seed, step)."""

from __future__ import annotations

import csv
import io
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from webui.errors import OutputError, TrainingError
from webui.images.grid import grid
from webui.training import state
from webui.training.kinds import Task
from webui.training.moments import Exported, Moment, Phase, Sampled, Saved, Stepped
from webui.training.optimisers import Learner, rate_at
from webui.training.order import Order
from webui.training.request import TrainingRequest

POLL_S = 0.2
TIMED_STEPS = 50
"""The time left follows the last so many steps."""
LOST_STEPS = 20
"""After so many steps in a row whose gradient is not finite the run is given up."""


class Wishes(Protocol):
    """What is wished of a run meanwhile; asked between two steps."""

    def stop(self) -> bool:
        """Whether to end now, with a checkpoint."""
        ...

    def pause(self) -> bool:
        """Whether to wait."""
        ...


@dataclass
class Run:
    """A task being learnt, its files in ``folder``.

    ``identity`` tells it from runs with other settings.  ``export`` writes the file that comes out, from the
    fp32 values of the trained tensors after a number of steps, and returns its path.
    """

    request: TrainingRequest
    task: Task
    order: Order
    folder: Path
    identity: str
    export: Callable[[Mapping[str, Tensor], int], Path]
    threads: int = 1
    step: int = 0
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=TIMED_STEPS))
    _lost: int = 0

    def __post_init__(self) -> None:
        self.learner = Learner(self.task.trained, self.task.initial, self.request.optimiser)
        found = state.load(self.folder, self.identity)
        if found is not None:
            self.step = found.step
            self.learner.restore(found.tensors, is_over=self.is_over)
        self.learner.write()
        self._losses = LossFile(self.folder / "losses.csv", self.step)
        self._saved_step = self.step
        self._saved_at = time.monotonic()

    def go(self, wishes: Wishes) -> Iterator[Moment]:
        """Go on until the last step, or until it is wished to stop; ends with a checkpoint either way.

        That of a run which is over has what its file is made of, and no more of the optimiser.
        Whether it came to its end tells :attr:`is_over`.  Raises TrainingError when the loss stays no number.
        """
        torch.set_num_threads(1 if self.request.parts > 1 else self.threads)
        try:
            with ThreadPoolExecutor(self.request.parts) as threads:
                while not self.is_over and not wishes.stop():
                    if wishes.pause():
                        yield from self._wait(wishes)
                        continue
                    yield self._step(threads)
                    yield from self._between_steps()
        finally:
            torch.set_num_threads(self.threads)
        yield from self._save()
        if self.is_over:
            yield from self._export()

    @property
    def is_over(self) -> bool:
        """Whether the last step was made."""
        return self.step >= self.request.steps

    def _step(self, threads: ThreadPoolExecutor) -> Stepped:
        began = time.monotonic()
        gradients, losses = self._gradients(threads)
        rate = rate_at(self.request.optimiser, self.step, self.request.steps)
        norm = self.learner.step(gradients, rate, threads)
        self._watch(norm)
        self.step += 1
        self._times.append(time.monotonic() - began)
        each = sum(self._times) / len(self._times)
        losses = {**losses, "gradient": norm}
        self._losses.write(self.step, losses, rate, self._times[-1])
        return Stepped(self.step, self.request.steps, losses, rate, each * (self.request.steps - self.step))

    def _gradients(self, threads: ThreadPoolExecutor) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The gradients by name in fp32, and the losses, of the step's batch; its parts are added up in order."""
        items = self.order.batch(self.step)
        count = min(self.request.parts, len(items))
        shares = [items[part::count] for part in range(count)]
        done = list(threads.map(self._part, shares, range(count)))
        total: dict[str, Tensor] = {}
        losses: dict[str, float] = {}
        for share, (gradients, values) in zip(shares, done, strict=True):
            weight = len(share) / len(items)
            for name in list(gradients):
                gradient = gradients.pop(name)  # so that it is freed before the next one is copied
                if name in total:
                    total[name].add_(gradient, alpha=weight)
                else:
                    total[name] = gradient.to(torch.float32, memory_format=torch.contiguous_format) * weight
            for name, value in values.items():
                losses[name] = losses.get(name, 0.0) + weight * value
        masters = self.learner.masters
        return {name: total[name] if name in total else torch.zeros_like(masters[name]) for name in masters}, losses

    def _part(self, items: Sequence[int], part: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The gradients of a part in the dtype of what they are of, without those of tensors it did not use."""
        torch.set_num_threads(1 if self.request.parts > 1 else self.threads)
        trained = self.learner.trained
        with torch.enable_grad():
            losses = self.task.loss(items, self.step, generator(self.request.seed, self.step, part))
            found = torch.autograd.grad(losses["loss"], list(trained.values()), allow_unused=True)
        gradients = {name: gradient for name, gradient in zip(trained, found, strict=True) if gradient is not None}
        return gradients, {name: float(value.detach()) for name, value in losses.items()}

    def _watch(self, norm: float) -> None:
        self._lost = 0 if np.isfinite(norm) else self._lost + 1
        if self._lost >= LOST_STEPS:
            raise TrainingError(
                f"The loss is no number since step {self.step - LOST_STEPS + 1}; begin anew with a lower learning "
                f"rate than {self.request.optimiser.rate:g} or in fp32."
            )

    def _between_steps(self) -> Iterator[Moment]:
        samples = self.request.samples
        if samples.every and (self.step % samples.every == 0 or self.is_over):
            yield from self._sample()
        every = self.request.export_every
        if every and self.step % every == 0 and not self.is_over:
            yield from self._export()
        if time.monotonic() - self._saved_at >= self.request.save_every_s:
            yield from self._save()

    def _sample(self) -> Iterator[Moment]:
        yield Phase("drawing samples")
        torch.set_num_threads(self.threads)
        self.learner.write(averaged=True)
        try:
            with torch.inference_mode():
                pictures = list(self.task.samples())
        finally:
            self.learner.write()
            torch.set_num_threads(1 if self.request.parts > 1 else self.threads)
        if pictures:
            path = self.folder / "samples" / f"{self.step:06d}.png"
            data = io.BytesIO()
            Image.fromarray(grid(pictures)).save(data, "PNG")
            state.write_whole(path, data.getvalue())
            yield Sampled(self.step, path)

    def _save(self) -> Iterator[Moment]:
        if self._saved_step != self.step or not (self.folder / state.FILE_NAME).exists():
            tensors = self.learner.outcome() if self.is_over else self.learner.state()
            state.save(self.folder, self.identity, state.RunState(self.step, tensors))
            self._saved_step = self.step
            yield Saved(self.step)
        self._saved_at = time.monotonic()

    def _export(self) -> Iterator[Moment]:
        yield Phase("writing the file")
        path = self.export(self.learner.averages or self.learner.masters, self.step)
        yield Exported(path)

    def _wait(self, wishes: Wishes) -> Iterator[Moment]:
        if time.monotonic() - self._saved_at >= self.request.save_every_s:
            yield from self._save()
        yield Phase("paused")
        while wishes.pause() and not wishes.stop():
            time.sleep(POLL_S)
        yield Phase("training")


def generator(seed: int, step: int, part: int) -> Generator:
    """A generator for one part of one step: the same numbers whenever and wherever it is computed."""
    word = int(np.random.SeedSequence((seed, step, part)).generate_state(1, np.uint64)[0])
    return Generator().manual_seed(word)


class LossFile:
    """``losses.csv``: a line a step.  Lines after ``step`` are of steps that were lost and are made again."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [row for row in read_losses(path) if int(row["step"]) <= step]
        self._names: list[str] = [] if not kept else list(kept[0])
        text = io.StringIO(newline="")
        if kept:
            writer = csv.DictWriter(text, self._names)
            writer.writeheader()
            writer.writerows(kept)
        state.write_whole(path, text.getvalue().encode())

    def write(self, step: int, losses: Mapping[str, float], rate: float, seconds: float) -> None:
        """Add a step.  Raises OutputError."""
        row = {"step": step, **{k: f"{v:.6g}" for k, v in losses.items()}, "rate": f"{rate:.6g}",
               "seconds": f"{seconds:.3f}"}  # fmt: skip
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self._names or list(row), extrasaction="ignore", restval="")
                if not self._names:
                    writer.writeheader()
                    self._names = list(row)
                writer.writerow(row)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written ({error}); is the disk full?") from error


def read_losses(path: Path) -> list[dict[str, str]]:
    """The lines of a ``losses.csv``, a cut last line left out; empty when there is none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if (row.get("step") or "").isdigit() and None not in row.values()]
