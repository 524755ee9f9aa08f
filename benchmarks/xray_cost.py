"""What the bundled X-ray extension costs a job that does not use it: its CPU time over that without extensions.

    python benchmarks/xray_cost.py [--runs N] [--threads N] [--starter FILE]

Two engines in one process, one with the extension's folder, one as ``--no-extensions`` makes it, make the same picture
in turn; their pictures are compared, and the median of the quotients of the CPU times is to be at most 1.01.  The same
job with X-ray on is given beside it.  Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from server_process import STARTER

ROOT = Path(__file__).parents[1]
TARGET = 1.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--starter", type=Path, default=STARTER, help="the embedded model's file")
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "extensions").mkdir()
        (folder / "extensions" / "xray").symlink_to(ROOT / "extensions" / "xray", target_is_directory=True)
        plain = Job(folder, "plain", arguments.starter, arguments.threads, extensions=False)
        loaded = Job(folder, "loaded", arguments.starter, arguments.threads, extensions=True)
        digests = {plain.made(), loaded.made(), loaded.made(seen=True)}  # the first run loads the model
        off, on, times = [], [], []
        for run in range(arguments.runs):
            jobs = (plain, loaded) if run % 2 else (loaded, plain)
            spent = {job.name: job.cpu_s() for job in jobs}
            off.append(spent["loaded"] / spent["plain"])
            on.append(loaded.cpu_s(seen=True) / spent["plain"])
            times.append(spent["plain"])
    same = "the same" if len(digests) == 1 else "DIFFERENT"
    print("| job, CPU s | loaded, off / no extensions | X-ray on / no extensions | target off | pixels | runs |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {statistics.median(times):.2f} | {statistics.median(off):.3f} | {statistics.median(on):.2f} "
        f"| ≤ {TARGET} | {same} | {arguments.runs} |"
    )


class Job:
    """One picture by a runner of its own."""

    def __init__(self, folder: Path, name: str, checkpoint: Path, threads: int, *, extensions: bool) -> None:
        from webui.engine.runner import Runner
        from webui.request import GenerationRequest, Sampling, Size
        from webui.settings import Settings

        self.name = name
        models = folder / name / "models" / "Stable-diffusion"
        models.mkdir(parents=True)
        (models / checkpoint.name).symlink_to(checkpoint.resolve())
        settings = Settings(
            models_dir=models.parent,
            outputs_dir=folder / name / "outputs",
            extensions_dir=folder / "extensions",
            load_extensions=extensions,
            threads=threads,
        )
        self.runner = Runner.start(settings)
        self.request = GenerationRequest(
            prompt="a red apple on a blue background",
            size=Size(width=128, height=128),
            sampling=Sampling(sampler="Euler", steps=20),
            seed=1,
        )

    def made(self, *, seen: bool = False) -> bytes:
        """The picture's pixels."""
        from webui.engine.executor import Control
        from webui.images.pixels import read_pixels
        from webui.request import ModuleUse

        request = replace(self.request, modules=(ModuleUse(name="xray"),)) if seen else self.request
        (path,) = self.runner.generate(request, lambda report: None, Control())
        return read_pixels(path.read_bytes()).tobytes()

    def cpu_s(self, *, seen: bool = False) -> float:
        """CPU seconds of the process for one picture."""
        before = time.process_time()
        self.made(seen=seen)
        return time.process_time() - before


if __name__ == "__main__":
    main()
