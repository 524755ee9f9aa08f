"""The cost of another LoRA, or of another weight of one, against one step of the UNet.

    python benchmarks/lora_switch.py [--runs N] [--precision bf16|fp32] [--threads N] [--model FILE] [--lora FILE ...]

Without files, random weights of Stable Diffusion 1.5's shapes and a LoRA of rank 16 on all its linear layers, text
encoder as well, and a LoCon on all convolutions too; written to a temporary folder.  A switch is all of
``conditioning.lora.adapted``: reading the file, fitting its names, changing copies of the weights.  A step is one call
of the UNet for 512 x 512 pixels with guidance (batch 2).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import networks_common as common
import torch
from random_checkpoint import write_sd15
from safetensors.torch import save_file

from webui import device, families
from webui.checkpoints.formats import BUILT_IN
from webui.conditioning.lora import LoraUse, adapted
from webui.model import Model
from webui.networks.layer_names import lora_targets
from webui.plugins.manager import Plugins


def write_lora(path: Path, model: Model, rank: int = 16, *, convolutions: bool = False) -> Path:
    """A random LoRA in kohya's layout, fp16 as most files are."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, target in lora_targets(model.unet, model.text_encoder, convolutions=convolutions).items():
        down = torch.randn(rank, *target.shape[1:], generator=generator) * 0.01
        up = torch.randn(target.shape[0], rank, *[1] * (len(target.shape) - 2), generator=generator) * 0.01
        tensors |= {f"{name}.lora_down.weight": down.half(), f"{name}.lora_up.weight": up.half()}
        tensors[f"{name}.alpha"] = torch.tensor(float(rank)).half()
    save_file(tensors, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--lora", type=Path, nargs="*", default=[])
    parser.add_argument("--keep-allocator", action="store_true", help="leave glibc's allocator as it is")
    options = parser.parse_args()
    common.restart_with_allocator(options.keep_allocator)
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    compute = device.choose("cpu", options.precision, options.threads)
    path = options.model or write_sd15(folder / "model.safetensors")
    model = families.load(BUILT_IN.open(path), Plugins.load(None).families, compute)
    files = options.lora or [
        write_lora(folder / "lora.safetensors", model),
        write_lora(folder / "locon.safetensors", model, convolutions=True),
    ]
    latent = torch.randn(2, 4, 64, 64).to(compute.dtype)
    context = torch.randn(2, 77, model.text_encoder.config.width).to(compute.dtype)
    timesteps = torch.tensor([500.0, 500.0])
    held: dict[str, Model] = {}

    def switch(file: Path) -> None:
        held.clear()
        weight = float(torch.rand(()))
        held["model"], _ = adapted(model, [LoraUse(file.stem, file, file.stem, weight, weight)])

    calls = {"step": lambda: model.unet(latent, timesteps, context)}
    calls |= {file.stem: lambda file=file: switch(file) for file in files}
    timings = common.in_turn(calls, options.runs)
    step = timings.pop("step")
    print(f"{common.environment(options.threads)}\n")
    print("| switch to | switch, s | CPU s | step, s | CPU s | switch / step | CPU | target | runs |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, timing in timings.items():
        wall, cpu = common.ratio(timing.wall, step.wall), common.ratio(timing.cpu, step.cpu)
        print(
            f"| {name}, {options.precision} | {timing.median:.2f} | {sorted(timing.cpu)[options.runs // 2]:.2f} "
            f"| {step.median:.2f} | {sorted(step.cpu)[options.runs // 2]:.2f} "
            f"| {wall:.1%} | {cpu:.1%} | ≤ 10 % | {options.runs} |"
        )


if __name__ == "__main__":
    main()
