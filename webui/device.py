"""What differs between CPU, CUDA, MPS and XPU: where tensors live, which dtype is fast, how attention is computed.

The one module that asks torch about hardware.  Everything below receives a :class:`Compute` and obeys it.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from webui.errors import RequestError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """Where and how the networks compute.  ``vae_dtype`` may be wider than ``dtype`` (fp16 VAEs overflow)."""

    device: torch.device
    dtype: torch.dtype
    vae_dtype: torch.dtype
    threads: int

    @property
    def dtype_name(self) -> str:
        """The dtype by the name that users and recipes know: fp32, bf16 or fp16."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    def images_at_once(self, batch_size: int) -> int:
        """How many images of a batch go through the network together.

        One on a CPU: kernels choose their blocking by batch size, so only a picture that is always computed alone is
        the same, bit for bit, in any batch; and a CPU is busy with one (measured: no slower).
        """
        return 1 if self.device.type == "cpu" else batch_size


def choose(device: str = "auto", precision: str = "auto", threads: int | None = None) -> Compute:
    """The Compute for a device name ("auto", "cpu", "cuda", "cuda:1", "mps", "xpu") and precision.

    Precision "auto" is fp16 on CUDA, XPU and MPS, and on a CPU bf16 where it has bf16 instructions, else fp32.
    Raises RequestError when the device is not there.
    """
    found = _best_device() if device == "auto" else device
    try:
        place = torch.device(found)
    except RuntimeError as error:
        raise RequestError(f'There is no device "{device}"; use cpu, cuda, cuda:N, mps or xpu.') from error
    if not _is_available(place):
        raise RequestError(f'The device "{device}" is not available here; this torch offers {", ".join(available())}.')
    if place.type == "cpu":
        torch.set_num_threads(threads or _cores())
    if precision != "auto" and precision not in DTYPES:
        raise RequestError(f'There is no precision "{precision}"; use auto, {", ".join(DTYPES)}.')
    dtype = _default_dtype(place) if precision == "auto" else DTYPES[precision]
    vae_dtype = torch.float32 if dtype is torch.float16 else dtype
    return Compute(place, dtype, vae_dtype, torch.get_num_threads())


def available() -> list[str]:
    """The device types that this torch can use, CPU last."""
    return [kind for kind in ("cuda", "xpu", "mps", "cpu") if _is_available(torch.device(kind))]


def cpu_name() -> str:
    """The processor as its maker names it, with the instruction set torch uses; part of a picture's recipe."""
    name = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def device_name(compute: Compute) -> str:
    """The device for the recipe: "cpu", or the graphics card's own name."""
    if compute.device.type == "cuda":
        return f"{compute.device} {torch.cuda.get_device_name(compute.device)}"
    return str(compute.device)


def release_memory(compute: Compute) -> None:
    """Give cached device memory back after a model was dropped."""
    if compute.device.type == "cuda":
        torch.cuda.empty_cache()
    elif compute.device.type == "mps":
        torch.mps.empty_cache()
    elif compute.device.type == "xpu":
        torch.xpu.empty_cache()


def _cores() -> int:
    """OMP_NUM_THREADS where it is set, else the processors this process may use: under taskset fewer than there are."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _best_device() -> str:
    return available()[0]


def _is_available(place: torch.device) -> bool:
    if place.type == "cpu":
        return True
    if place.type == "cuda":
        return torch.cuda.is_available() and (place.index or 0) < torch.cuda.device_count()
    if place.type == "mps":
        return torch.backends.mps.is_available()
    if place.type == "xpu":
        return hasattr(torch, "xpu") and torch.xpu.is_available()
    return False


def _default_dtype(place: torch.device) -> torch.dtype:
    if place.type != "cpu":
        return torch.float16
    return torch.bfloat16 if _cpu_has_bf16() else torch.float32


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively (AVX512_BF16, AMX, or Arm's bf16); emulation is slower than fp32."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if probe is not None and probe():
        return True
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return platform.machine() in ("arm64", "aarch64") and supported is not None and bool(supported())
