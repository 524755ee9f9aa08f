"""Time and peak memory of loading a checkpoint of SD1.5's true shapes (2.1 GB in fp16) to bf16 and fp32.

    python benchmarks/load_memory.py [--runs N] [--checkpoint FILE] [--dtype bf16 fp32]

Each load has a process of its own.  Memory is what the process gained at its peak, from the kernel's high-water mark,
over the bytes of the loaded weights; the target is at most 1.15.  Without ``--checkpoint`` a random one is written into
a temporary folder.  Linux only.  Prints Markdown table rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

TARGET = 1.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--dtype", nargs="+", choices=("bf16", "fp32", "fp16"), default=["bf16", "fp32"])
    parser.add_argument("--once", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(load_once(arguments.checkpoint, arguments.once)))
        return
    with TemporaryDirectory() as folder:
        if arguments.checkpoint is None:
            from random_checkpoint import write_sd15

            arguments.checkpoint = write_sd15(Path(folder) / "random.safetensors")
        print(f"{arguments.checkpoint.name}, {arguments.checkpoint.stat().st_size / 1e9:.2f} GB\n")
        print("| load to | seconds | CPU seconds | weights, MiB | gained at peak, MiB | over weights | target | runs |")
        print("|---|---|---|---|---|---|---|---|")
        for dtype in arguments.dtype:
            print(row(arguments.checkpoint, dtype, arguments.runs), flush=True)


def row(checkpoint: Path, dtype: str, runs: int) -> str:
    command = [sys.executable, __file__, "--checkpoint", str(checkpoint), "--once", dtype]
    loads = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(runs)
    ]
    names = ("s", "cpu", "weights", "peak")
    seconds, cpu, weights, peak = (statistics.median(load[name] for load in loads) for name in names)
    return (
        f"| {dtype} | {seconds:.2f} | {cpu:.2f} | {weights / 2**20:.0f} | {peak / 2**20:.0f} | {peak / weights:.3f} "
        f"| ≤ {TARGET} | {runs} |"
    )


def load_once(checkpoint: Path, dtype: str) -> dict[str, float]:
    """Seconds, CPU seconds, bytes of the weights, and bytes gained at the peak by loading in this process."""
    from webui import device, families
    from webui.checkpoints.formats import BUILT_IN
    from webui.plugins.manager import Plugins

    compute = device.choose("cpu", dtype)
    plugins = Plugins.load(None)
    families.find_family(BUILT_IN.open(checkpoint).header, plugins.families)
    _import_networks()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    started, computed = time.perf_counter(), time.process_time()
    model = families.load(BUILT_IN.open(checkpoint), plugins.families, compute)
    seconds, cpu = time.perf_counter() - started, time.process_time() - computed
    networks = (model.unet, model.vae, model.text_encoder)
    weights = sum(tensor.nbytes for network in networks for tensor in network.state_dict().values())
    return {"s": seconds, "cpu": cpu, "weights": weights, "peak": _status("VmHWM") - before}


def _import_networks() -> None:
    """What the first load imports, so that it does not count as the weights' memory."""
    from webui.networks import clip, unet, vae
    from webui.prompt.tokenizer import Tokenizer

    assert clip and unet and vae
    Tokenizer()


def _status(name: str) -> int:
    """A line of the process's status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


if __name__ == "__main__":
    main()
