"""What the network benchmarks share: the same random SD1.5 weights in our networks and in diffusers', and timing.

Both sides hold the same tensors, run in the same process, under the same allocator settings, in turn; what is compared
is the median of the ratios of neighbouring runs, which a busy machine disturbs least.
"""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests" / "networks")]

# glibc by default hands oneDNN's buffers back to the kernel at every convolution and takes them again at the next.
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
}


def restart_with_allocator(keep_default: bool) -> None:
    """Start this process again with glibc's allocator keeping its memory, unless it already does."""
    if not keep_default and any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})


@dataclass
class Timings:
    """Seconds of wall and of CPU time for each run."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.wall)


def in_turn(calls: dict[str, Callable[[], Any]], runs: int) -> dict[str, Timings]:
    """Timings of each call, run in turn ``runs`` times after one warm-up each; the order changes every run."""
    timings = {name: Timings() for name in calls}
    with torch.inference_mode():
        for call in calls.values():
            call()
        for run in range(runs):
            for name in sorted(calls, reverse=bool(run % 2)):
                wall, cpu = time.perf_counter(), time.process_time()
                calls[name]()
                timings[name].wall.append(time.perf_counter() - wall)
                timings[name].cpu.append(time.process_time() - cpu)
    return timings


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over runs of ours / theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def restart_peak() -> float:
    """Give freed memory back to the kernel and begin a new peak; MiB held now."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_mib()


def peak_mib() -> float:
    """The most memory this process has held since :func:`restart_peak`, in MiB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def environment(threads: int) -> str:
    from webui.device import cpu_name

    return f"{cpu_name()}, {threads} threads, torch {torch.__version__}"
