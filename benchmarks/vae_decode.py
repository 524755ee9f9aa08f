"""VAE decode of a 512 x 512 picture on random SD1.5 weights: time in turn, and peak memory of a process each.

    python benchmarks/vae_decode.py [--runs N] [--threads N] [--size PX] [--dtype fp32 bf16] [--default-allocator]

Prints Markdown table rows; the ratio is ours / diffusers.  Memory is what a fresh process holds at its peak beyond what
it held with the weights loaded, under glibc's default allocator, which maps each large tensor on its own (Linux).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import networks_common as common
import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--size", type=int, default=512, help="picture side in pixels")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--default-allocator", action="store_true", help="leave glibc's allocator as it is, for both")
    parser.add_argument("--memory-of", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    common.restart_with_allocator(arguments.default_allocator)
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        print(memory(arguments.memory_of, arguments.dtype[0], arguments.size))
        return

    print(f"{common.environment(arguments.threads)}, {arguments.size} px, {arguments.runs} runs in turn\n")
    print("| VAE decode | ours, s | diffusers, s | ratio | ratio of CPU time | ours, peak MiB | diffusers, peak MiB |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.dtype:
        peaks = " | ".join(peak_of_fresh_process(side, name) for side in ("ours", "theirs"))
        print(f"{timing_row(name, arguments.size, arguments.runs)} {peaks} |", flush=True)


def decoders(dtype_name: str, size: int) -> dict[str, Callable[[], Any]]:
    """Both decoders on the same weights and latent."""
    import oracles

    from webui.networks.kernels import arrange
    from webui.networks.vae import VAEConfig

    ours = oracles.vae(VAEConfig()).to(DTYPES[dtype_name])
    theirs = oracles.diffusers_vae(ours)
    arrange(ours)
    latent = torch.randn(1, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(0)).to(DTYPES[dtype_name])
    return {"ours": lambda: ours.decode(latent), "theirs": lambda: theirs.decode(latent).sample}


def timing_row(dtype_name: str, size: int, runs: int) -> str:
    timings = common.in_turn(decoders(dtype_name, size), runs)
    wall = common.ratio(timings["ours"].wall, timings["theirs"].wall)
    cpu = common.ratio(timings["ours"].cpu, timings["theirs"].cpu)
    return f"| {dtype_name} | {timings['ours'].median:.2f} | {timings['theirs'].median:.2f} | {wall:.3f} | {cpu:.3f} |"


def memory(side: str, dtype_name: str, size: int) -> int:
    """MiB that one decode adds to this process."""
    decode = decoders(dtype_name, size)[side]
    before = common.restart_peak()
    with torch.inference_mode():
        decode()
    return round(common.peak_mib() - before)


def peak_of_fresh_process(side: str, dtype_name: str) -> str:
    options = [*sys.argv[1:], "--dtype", dtype_name, "--memory-of", side, "--default-allocator"]
    default = {name: value for name, value in os.environ.items() if name not in common.ALLOCATOR}
    run = subprocess.run([sys.executable, __file__, *options], env=default, capture_output=True, text=True, check=True)
    return run.stdout.strip()


if __name__ == "__main__":
    main()
