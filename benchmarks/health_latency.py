"""How long ``GET /health`` takes while the worker computes, against the same server at rest.

    python benchmarks/health_latency.py [--seconds N] [--starter FILE] [--size PX]

Each request has a connection of its own, one every 20 ms.  The target is p99 <= 100 ms during a generation.  Prints
Markdown table rows.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from server_process import STARTER, Server, ask, models_folder, server

INTERVAL_S = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--starter", type=Path, default=STARTER, help="a checkpoint")
    parser.add_argument("--size", type=int, default=256, help="picture side in pixels")
    arguments = parser.parse_args()
    request = {
        "prompt": "a red apple on a blue background",
        "checkpoint": "starter",
        "size": {"width": arguments.size, "height": arguments.size},
        "sampling": {"sampler": "Euler", "steps": 30},
        "batch_count": 1000,
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        with server(folder, models_folder(folder / "models", arguments.starter)) as running:
            running.wait_for("/health")
            running.wait_ready()
            print("| GET /health | requests | p50, ms | p99, ms | longest, ms | target |")
            print("|---|---|---|---|---|---|")
            print(row("at rest", latencies(running, arguments.seconds / 2), ""))
            job = running.submit(request)
            while running.worker() != "busy":
                time.sleep(0.05)
            print(row("during a generation", latencies(running, arguments.seconds), "p99 ≤ 100 ms"))
            if running.worker() != "busy":
                raise RuntimeError(f"the job {job} was over before the measurement")


def latencies(running: Server, seconds: float) -> list[float]:
    """Milliseconds of each request."""
    found = []
    end = time.perf_counter() + seconds
    while (asked := time.perf_counter()) < end:
        ask(running.port, "/health")
        found.append((time.perf_counter() - asked) * 1000)
        time.sleep(INTERVAL_S)
    return found


def row(what: str, milliseconds: list[float], target: str) -> str:
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return f"| {what} | {len(milliseconds)} | {p50:.1f} | {p99:.1f} | {max(milliseconds):.1f} | {target} |"


if __name__ == "__main__":
    main()
