"""What the training benchmarks share: two processes, ours and a plain diffusers loop, that make steps in turn.

Each side lives in a process of its own, so that each has its own peak memory; the parent asks one, then the other, for
the same number of steps, and compares neighbouring turns, which a busy machine disturbs least.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import networks_common as common
import torch
from torch import Tensor

SIDES = ("ours", "diffusers")
TABLE = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
PICTURES = 64
TABLE_HEAD = (
    "| training | batch | dtype | ours, samples/s | diffusers, samples/s | ours / diffusers | by CPU time "
    "| ours, peak MiB | diffusers, peak MiB | target | turns |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Case:
    """A row: whose shapes, pictures of how many pixels, how many at once, captions of how many tokens."""

    shapes: str
    size: int
    batch: int
    tokens: int


CASES = {
    "embedded": Case("embedded", 128, 32, 12),
    "half": Case("half", 128, 2, 24),
    "sd15": Case("sd15", 128, 2, 24),
}
NAMES = {
    "embedded": "the embedded model's shapes",
    "half": "SD1.5 shapes at half the width",
    "sd15": "SD1.5 shapes",
}


def main(
    description: str | None,
    sides: dict[str, Callable[..., Iterator[None]]],
    cases: list[str],
    layers: tuple[str, ...] = (),
) -> None:
    """Parse the command line; be one side, or the parent that prints the rows."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=CASES, default=cases)
    parser.add_argument("--dtype", nargs="+", choices=("bf16", "fp32"), default=["bf16", "fp32"])
    parser.add_argument("--batch", type=int, help="pictures at once (default: by model)")
    parser.add_argument("--size", type=int, help="picture side in pixels (default: by model)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=25.0, help="for each row, after the first steps")
    parser.add_argument("--only", choices=SIDES, help="measure one side alone (memory)")
    parser.add_argument("--default-allocator", action="store_true", help="leave glibc's allocator as it is, for both")
    if layers:
        parser.add_argument("--layers", choices=layers, default=layers[0])
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        _serve(sides[arguments.side], arguments)
        return
    print(f"{common.environment(arguments.threads)}, each side a process, in turn\n\n{TABLE_HEAD}", flush=True)
    for model in arguments.model:
        for dtype in arguments.dtype:
            print(_row(model, dtype, arguments), flush=True)


def case_of(arguments: argparse.Namespace) -> Case:
    case = CASES[arguments.model[0]]
    return Case(case.shapes, arguments.size or case.size, arguments.batch or case.batch, case.tokens)


def _serve(side: Callable[..., Iterator[None]], arguments: argparse.Namespace) -> None:
    """Make one step for each line that comes in, and tell its seconds and CPU seconds."""
    torch.set_num_threads(arguments.threads)
    others = [arguments.layers] if "layers" in arguments else []
    steps = side(case_of(arguments), arguments.dtype[0], arguments.threads, *others)
    for _ in range(2):
        next(steps)
    common.restart_peak()  # what building the networks took does not count
    print("ready", flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            next(steps)
        times = (time.perf_counter() - wall, time.process_time() - cpu)
        print(json.dumps([*times, common.peak_mib()]), flush=True)
    os._exit(0)  # without the checkpoint that a run writes at its end


def _row(model: str, dtype: str, arguments: argparse.Namespace) -> str:
    case = case_of(argparse.Namespace(**{**vars(arguments), "model": [model]}))
    sides = [arguments.only] if arguments.only else list(SIDES)
    processes = {side: _started(side, model, dtype, arguments) for side in sides}
    try:
        for process in processes.values():
            _heard(process)
        first = {side: _asked(processes[side], 1)[0] for side in sides}
        steps = max(1, round(2.0 / max(first.values())))
        turns: dict[str, list[list[float]]] = {side: [] for side in sides}
        end = time.monotonic() + arguments.seconds
        while time.monotonic() < end or len(turns[sides[0]]) < 3:
            for side in sides if len(turns[sides[0]]) % 2 else sides[::-1]:
                turns[side].append(_asked(processes[side], steps))
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return _written(model, case, dtype, steps * case.batch, turns)


def _written(model: str, case: Case, dtype: str, samples: int, turns: dict[str, list[list[float]]]) -> str:
    each = {side: f"{samples / statistics.median(t[0] for t in turns[side]):.2f}" for side in turns}
    peak = {side: f"{max(t[2] for t in turns[side]):.0f}" for side in turns}
    ratios = ["", ""]
    if len(turns) == 2:
        pairs = list(zip(turns["ours"], turns["diffusers"], strict=True))
        ratios = [f"{statistics.median(b[kind] / a[kind] for a, b in pairs):.2f}" for kind in (0, 1)]
    cells = [f"{NAMES[model]}, {case.size} px", str(case.batch), dtype, each.get("ours", ""), each.get("diffusers", "")]
    cells += [*ratios, peak.get("ours", ""), peak.get("diffusers", ""), "≥ 1.2", str(max(map(len, turns.values())))]
    return f"| {' | '.join(cells)} |"


def _started(side: str, model: str, dtype: str, arguments: argparse.Namespace) -> subprocess.Popen[str]:
    command = [sys.executable, sys.argv[0], "--side", side, "--model", model, "--dtype", dtype]
    command += ["--threads", str(arguments.threads)]
    command += [
        f"--{name}={vars(arguments)[name]}" for name in ("batch", "size", "layers") if vars(arguments).get(name)
    ]
    allocator = {} if arguments.default_allocator else common.ALLOCATOR
    environment = {**os.environ, **allocator, "OMP_NUM_THREADS": str(arguments.threads)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit("One side ended early; its message is above.")
    return line


def _asked(process: subprocess.Popen[str], steps: int) -> list[float]:
    assert process.stdin is not None
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    times: list[float] = json.loads(_heard(process))
    return times


def networks(case: Case) -> tuple[Any, Any]:
    """A UNet and a text encoder of a case's shapes with random weights in fp32."""
    import oracles

    from webui.networks.clip import ClipTextConfig
    from webui.networks.unet import UNetConfig

    if case.shapes == "embedded":
        unet, text = _embedded()
    elif case.shapes == "half":
        unet, text = UNetConfig(model_channels=160, time_channels=640, channels=(160, 320, 640, 640)), ClipTextConfig()
    else:
        unet, text = UNetConfig(), ClipTextConfig()
    return oracles.unet(unet), oracles.clip(text)


def _embedded() -> tuple[Any, Any]:
    from webui.checkpoints import keys
    from webui.checkpoints.formats import BUILT_IN
    from webui.families.sd15 import checked_config
    from webui.networks.clip import ClipTextConfig
    from webui.networks.unet import UNetConfig

    folder = Path(__file__).parents[1] / "models" / "Stable-diffusion"
    file = BUILT_IN.open(next(iter(sorted(folder.glob("*.safetensors")))))
    said = checked_config(file)
    unet, text = said.get("unet", {}), said.get("text", {})
    return (
        UNetConfig.from_shapes(file.header.shapes(keys.UNET_PREFIX), unet.get("num_heads"), unet.get("norm_groups")),
        ClipTextConfig.from_shapes(file.header.shapes(keys.CLIP_PREFIX), text.get("heads")),
    )


def diffusers_networks(case: Case) -> tuple[Any, Any]:
    """The same networks as diffusers and transformers have them."""
    import oracles

    unet, text = networks(case)
    return oracles.diffusers_unet(unet), oracles.transformers_clip(text)


def moments(case: Case) -> Tensor:
    """Means and log variances (PICTURES, 8, h, w) of latents, as a VAE leaves them."""
    generator = torch.Generator().manual_seed(0)
    side = case.size // 8
    mean = torch.randn(PICTURES, 4, side, side, generator=generator) / 0.18215
    return torch.cat([mean, torch.full_like(mean, -12.0)], dim=1).half()


def captions(case: Case) -> Tensor:
    """Token ids (PICTURES, 77) of captions of as many tokens as the case says."""
    tokens = torch.full((PICTURES, 77), 49407)
    tokens[:, 0] = 49406
    generator = torch.Generator().manual_seed(1)
    tokens[:, 1 : 1 + case.tokens] = torch.randint(300, 40000, (PICTURES, case.tokens), generator=generator)
    return tokens


class _Never:
    def stop(self) -> bool:
        return False

    def pause(self) -> bool:
        return False


def our_run(case: Case, request: Any, make_task: Callable[[Any, Any, Any], Any], threads: int) -> Iterator[None]:
    """The trainer's own loop over the task that ``make_task`` makes of materials, latents and captions."""
    from webui.device import Compute
    from webui.training.captions import Captions
    from webui.training.latents import Latents
    from webui.training.loop import Run
    from webui.training.moments import Stepped
    from webui.training.order import Order

    dtype = DTYPES[request.precision]
    items = tuple(
        SimpleNamespace(width=case.size, height=case.size, is_class=False, repeats=1) for _ in range(PICTURES)
    )
    data: Any = SimpleNamespace(items=items, size=case.size)
    compute = Compute(torch.device("cpu"), dtype, dtype, threads)
    materials = SimpleNamespace(request=request, data=data, compute=compute)
    latents = Latents({"all": moments(case)}, {item: ("all", item) for item in range(PICTURES)}, False, 0.18215)
    task = make_task(materials, latents, Captions(captions(case).int()))
    with tempfile.TemporaryDirectory() as folder:
        order = Order.of(items, request.batch_size, 0)  # type: ignore[arg-type]
        run = Run(request, task, order, Path(folder), "benchmark", lambda *_: Path(folder), threads)
        for moment in run.go(_Never()):
            if isinstance(moment, Stepped):
                yield


def diffusers_steps(case: Case, dtype: str, unet: Any, text: Any, trained: list[Tensor]) -> Iterator[None]:
    """The loop of diffusers' examples, a step each time."""
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(**TABLE)
    optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=1e-2)
    known, tokens = moments(case), captions(case)
    while True:
        rows = torch.randint(len(known), (case.batch,))
        mean, logvar = known[rows].float().chunk(2, dim=1)
        latents = (mean + (0.5 * logvar).exp() * torch.randn_like(mean)).to(DTYPES[dtype]) * 0.18215
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (case.batch,))
        noisy = scheduler.add_noise(latents, noise, timesteps)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            context = text(tokens[rows], return_dict=False)[0]
            answer = unet(noisy, timesteps, context, return_dict=False)[0]
        loss = torch.nn.functional.mse_loss(answer.float(), noise.float(), reduction="mean")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield


def request(kind: str, case: Case, dtype: str, threads: int, **options: Any) -> Any:
    """A training request that never ends and writes nothing meanwhile."""
    from webui.training.request import Data, Optimiser, Samples, TrainingRequest

    return TrainingRequest(
        kind=kind,
        name="benchmark",
        data=Data(folder="none"),
        steps=100_000_000,
        batch_size=case.batch,
        precision=dtype,
        parts=min(threads, case.batch),
        save_every_s=1e9,
        samples=Samples(every=0),
        optimiser=Optimiser(rate=1e-5, weight_decay=0.01),
        options=options,
    )
