"""What a whole job costs over its networks alone, and which share of it previews and saving take.

    python benchmarks/job_overhead.py [--runs N] [--threads N] [--only embedded|sd15] [--starter FILE] [--sd15 FILE]

The job goes through the engine: queue, store, prompt, sampler, guidance, events, previews, PNG with its texts, fsync.
Its overhead is the time outside the networks over the time inside, in the very same job, so that a busy machine changes
it little; the median over runs is to be at most 3 % where a step costs something.  Beside it, the bare networks are
called in turn with the job (two text encodings, as many UNet calls with cond and uncond as a batch of two, one VAE
decode), and the median of job / bare - 1 is given in wall and in CPU time.  SD1.5's shapes get random weights unless
``--sd15`` names a file.  Prints Markdown table rows.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from server_process import STARTER

from webui.engine.executor import MALLOC

TARGET = "≤ 3 %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", choices=("embedded", "sd15"))
    parser.add_argument("--starter", type=Path, default=STARTER, help="the embedded model's file")
    parser.add_argument("--sd15", type=Path, help="an SD1.5 checkpoint")
    arguments = parser.parse_args()
    if sys.platform.startswith("linux") and any(os.environ.get(name) != value for name, value in MALLOC.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})  # as the worker process has it
    print(
        "| model | bare networks, s | job, s | overhead | of it previews | saving | job / bare | CPU | target | runs |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    with TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.only != "sd15":
            bench = Bench(folder / "embedded", arguments.starter, arguments.threads, size=128, steps=20)
            print(bench.row("embedded, 128 px, 20 steps", arguments.runs, ""), flush=True)
        if arguments.only != "embedded":
            from random_checkpoint import write_sd15

            checkpoint = arguments.sd15 or write_sd15(folder / "random.safetensors")
            bench = Bench(folder / "sd15", checkpoint, arguments.threads, size=256, steps=10)
            print(bench.row("SD1.5 shapes, 256 px, 10 steps", arguments.runs, TARGET), flush=True)


@dataclass
class Stopwatch:
    """Seconds spent inside the functions it was put around."""

    spent_s: float = 0.0

    @contextmanager
    def around(self, owner: Any, name: str) -> Iterator[None]:
        inner: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return inner(*arguments, **named)
            finally:
                self.spent_s += time.perf_counter() - started

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, inner)


@dataclass
class Timing:
    """One run: wall and CPU seconds."""

    wall: float
    cpu: float


@dataclass
class Found:
    """The runs of a benchmark."""

    bare: list[Timing] = field(default_factory=list)
    job: list[Timing] = field(default_factory=list)
    overhead: list[float] = field(default_factory=list)
    previews: list[float] = field(default_factory=list)
    saving: list[float] = field(default_factory=list)


class Bench:
    """One model in an engine of its own."""

    def __init__(self, folder: Path, checkpoint: Path, threads: int | None, *, size: int, steps: int) -> None:
        from webui.engine.engine import Engine
        from webui.engine.inprocess import InProcess
        from webui.engine.runner import Runner
        from webui.request import GenerationRequest, Sampling, Size
        from webui.settings import Settings

        models = folder / "models" / "Stable-diffusion"
        models.mkdir(parents=True)
        (models / checkpoint.name).symlink_to(checkpoint.resolve())
        settings = Settings(
            models_dir=folder / "models", outputs_dir=folder / "outputs", load_extensions=False, threads=threads
        )
        self.runner = Runner.start(settings)
        self.engine = Engine.create(settings, InProcess(self.runner))
        self.engine.start()
        self.request = GenerationRequest(
            prompt="a red apple on a blue background",
            size=Size(width=size, height=size),
            sampling=Sampling(sampler="Euler", steps=steps),
            seed=1,
        )

    def row(self, name: str, runs: int, target: str) -> str:
        """The table row of this model."""
        self.job()
        self.bare()
        found = Found()
        for run in range(runs):
            for part in (self.bare, self.job) if run % 2 else (self.job, self.bare):
                part(found)
        self.engine.close()
        bare, job = (statistics.median(timing.wall for timing in timings) for timings in (found.bare, found.job))
        pairs = list(zip(found.job, found.bare, strict=True))
        wall = statistics.median(job.wall / bare.wall for job, bare in pairs) - 1
        cpu = statistics.median(job.cpu / bare.cpu for job, bare in pairs) - 1
        shares = (statistics.median(values) for values in (found.overhead, found.previews, found.saving))
        overhead, previews, saving = (f"{share:.1%}" for share in shares)
        return (
            f"| {name} | {bare:.2f} | {job:.2f} | {overhead} | {previews} | {saving} | {wall:+.1%} | {cpu:+.1%} "
            f"| {target} | {runs} |"
        )

    def job(self, found: Found | None = None) -> None:
        """One picture by the engine, from the click to the event that it is done."""
        from webui.engine import progress

        if found is None:
            asyncio.run(self._until_done())
            return
        networks, previews, saving = Stopwatch(), Stopwatch(), Stopwatch()
        model = self.runner.models.checkpoint(self.runner.library.default_checkpoint(), self.runner.compute)
        with (
            networks.around(model.unet, "forward"),
            networks.around(model.vae, "decode"),
            networks.around(model.text_encoder, "forward"),
            previews.around(progress, "preview_jpeg"),
            saving.around(self.runner, "_save"),
        ):
            timing = timed(lambda: asyncio.run(self._until_done()))
        found.job.append(timing)
        found.overhead.append(timing.wall / networks.spent_s - 1)
        found.previews.append(previews.spent_s / networks.spent_s)
        found.saving.append(saving.spent_s / networks.spent_s)

    async def _until_done(self) -> None:
        job = self.engine.submit(self.request)
        async for event in self.engine.follow(job.id):
            last = event.kind
        if last != "done":
            raise RuntimeError(f"the job ended as {last}: {self.engine.job(job.id).error}")

    def bare(self, found: Found | None = None) -> None:
        """The same networks on tensors of the same shapes."""
        import torch

        entry = self.runner.library.default_checkpoint()
        model = self.runner.models.checkpoint(entry, self.runner.compute)  # the very weights that the job used
        latent = self.request.size.width // model.vae.config.factor
        dtype, steps = model.compute.dtype, self.request.sampling.steps
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, model.unet.config.in_channels, latent, latent, generator=generator).to(dtype)
        tokens = torch.full((1, 77), 1)

        def run() -> None:
            with torch.inference_mode():
                context = torch.cat([model.text_encoder(tokens) for _ in range(2)])
                for step in range(steps):
                    model.unet(x, torch.full((2,), 999.0 - step), context)
                model.vae.decode(x[:1].to(model.compute.vae_dtype))

        timing = timed(run)
        if found is not None:
            found.bare.append(timing)


def timed(run: Callable[[], object]) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


if __name__ == "__main__":
    main()
