"""Does memory grow when checkpoints and LoRAs are switched?  Resident memory over 50 switches of SD1.5's true shapes.

    python benchmarks/switch_memory.py [--switches N] [--dtype bf16]

Two random checkpoints take turns in one process, with the allocator settings of the worker; every second job has a LoRA
merged, with another weight each time.  Each switch is a whole job (one step at 64x64) through the runner.  The slope is
that of a least-squares line over the resident memory after each switch, the first ten left out, per switch and in
percent of one model's weights; the target is at most 1 % over all 50 switches.  Linux only.  Prints a Markdown row.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

TARGET = 1.0
SETTLING = 10
"""Switches until every buffer was needed once."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switches", type=int, default=50)
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    arguments = parser.parse_args()
    with_worker_allocator()
    with TemporaryDirectory() as folder:
        weights, resident = measured(Path(folder), arguments.switches, arguments.dtype)
    print_row(weights, resident, arguments.dtype)


def with_worker_allocator() -> None:
    """Start this process over with the worker's settings of the C library's allocator, which it reads at its start."""
    from webui.engine.executor import MALLOC

    if any(os.environ.get(name) != value for name, value in MALLOC.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})


def measured(folder: Path, switches: int, dtype: str) -> tuple[int, list[int]]:
    """Bytes of one model's weights, and of resident memory after each switch."""
    from webui.engine.executor import Control
    from webui.engine.runner import Runner
    from webui.request import GenerationRequest, Sampling, Size
    from webui.settings import Settings

    models = folder / "models"
    write_models(models)
    settings = Settings(models_dir=models, outputs_dir=folder / "outputs", device="cpu", precision=dtype)
    runner = Runner.start(replace(settings, load_extensions=False))
    resident = []
    for switch in range(switches):
        tag = f"<lora:ink:{0.2 + switch / 100}>" if switch % 2 else ""
        request = GenerationRequest(
            prompt=f"a cat{tag}",
            seed=switch,
            size=Size(width=64, height=64),
            sampling=Sampling(sampler="Euler", steps=1),
            checkpoint=("one", "two")[switch // 2 % 2],
        )
        for _ in runner.generate(request, lambda report: None, Control()):
            pass
        resident.append(resident_bytes())
        print(f"{switch + 1:3d} {resident[-1] / 2**20:8.0f} MiB", file=sys.stderr, flush=True)
    model = runner.models.checkpoint(runner.library.find("one"), runner.compute)
    networks = (model.unet, model.vae, model.text_encoder)
    return sum(tensor.nbytes for network in networks for tensor in network.state_dict().values()), resident


def write_models(models: Path) -> None:
    """Two checkpoints and a LoRA (rank 8 on the attention of the UNet)."""
    import torch
    from random_checkpoint import sd15_shapes, write_sd15

    from webui.checkpoints.safetensors import write_file

    for name, seed in (("one", 1), ("two", 2)):
        path = models / "Stable-diffusion" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sd15(path, seed)
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for name, shape in sd15_shapes().items():
        layer = name.removeprefix("model.diffusion_model.").removesuffix(".weight")
        if ".attn" in layer and len(shape) == 2 and name.endswith(".weight"):
            key = f"lora_unet_{layer.replace('.', '_')}"
            tensors[f"{key}.lora_down.weight"] = torch.randn(8, shape[1], generator=generator) * 0.01
            tensors[f"{key}.lora_up.weight"] = torch.randn(shape[0], 8, generator=generator) * 0.01
    path = models / "Lora" / "ink.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, tensors, {})


def resident_bytes() -> int:
    """The process's resident memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LookupError("VmRSS")


def print_row(weights: int, resident: list[int], dtype: str) -> None:
    import numpy as np

    settled = np.array(resident[min(SETTLING, len(resident) // 2) :], dtype=np.float64)
    slope = float(np.polyfit(np.arange(len(settled)), settled, 1)[0]) if len(settled) > 1 else 0.0
    grown = 100 * slope * len(resident) / weights
    print("| dtype | switches | weights, MiB | resident at the end, MiB | KiB a switch | % of a model | target |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {dtype} | {len(resident)} | {weights / 2**20:.0f} | {resident[-1] / 2**20:.0f} | {slope / 1024:.0f} "
        f"| {grown:.2f} | ≤ {TARGET} |"
    )


if __name__ == "__main__":
    main()
