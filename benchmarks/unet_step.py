"""Seconds per UNet step on random SD1.5 weights (512 x 512, cond and uncond as a batch of 2), ours against diffusers.

    python benchmarks/unet_step.py [--runs N] [--threads N] [--size PX] [--dtype fp32 bf16] [--default-allocator]

Prints Markdown table rows; the ratio is ours / diffusers, the target at most 0.95.
"""

from __future__ import annotations

import argparse

import networks_common as common
import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--size", type=int, default=512, help="picture side in pixels")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--default-allocator", action="store_true", help="leave glibc's allocator as it is, for both")
    arguments = parser.parse_args()
    common.restart_with_allocator(arguments.default_allocator)
    torch.set_num_threads(arguments.threads)

    print(f"{common.environment(arguments.threads)}, {arguments.size} px, {arguments.runs} runs in turn\n")
    print("| UNet step | ours, s | diffusers, s | ratio | ratio of CPU time | largest difference |")
    print("|---|---|---|---|---|---|")
    for name in arguments.dtype:
        print(row(name, arguments.size, arguments.runs), flush=True)


def row(dtype_name: str, size: int, runs: int) -> str:
    """One table row: medians in seconds, their ratio, and how far the two results are apart."""
    import oracles

    from webui.networks.kernels import arrange
    from webui.networks.unet import UNetConfig

    dtype = DTYPES[dtype_name]
    ours = oracles.unet(UNetConfig()).to(dtype)
    theirs = oracles.diffusers_unet(ours)
    arrange(ours)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, size // 8, size // 8, generator=generator).to(dtype)
    context = torch.randn(2, 77, 768, generator=generator).to(dtype)
    timesteps = torch.tensor([501.0, 501.0])
    calls = {
        "ours": lambda: ours(x, timesteps, context),
        "theirs": lambda: theirs(x, timesteps, context).sample,
    }
    with torch.inference_mode():
        difference = oracles.relative_error(calls["ours"](), calls["theirs"]())
    timings = common.in_turn(calls, runs)
    wall = common.ratio(timings["ours"].wall, timings["theirs"].wall)
    cpu = common.ratio(timings["ours"].cpu, timings["theirs"].cpu)
    medians = f"{timings['ours'].median:.2f} | {timings['theirs'].median:.2f}"
    return f"| {dtype_name} | {medians} | {wall:.3f} | {cpu:.3f} | {difference:.1e} |"


if __name__ == "__main__":
    main()
