"""All of a run on disk: weights, their averages, the optimiser's state, the step.  Written whole or not at all.

One trainer at a time works on a run's folder.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from webui.checkpoints.safetensors import write_file
from webui.device import Compute
from webui.errors import CheckpointError, OutputError, TrainingError
from webui.training.request import TrainingRequest

FILE_NAME = "state.safetensors"
LOCK_NAME = "run.lock"
NOT_IDENTITY = ("samples", "save_every_s", "export_every")
"""Fields of a request that change no weight: a run may go on with others."""
LEFT_BEHIND_S = 3600.0
"""An unfinished file that nobody wrote to for so long is of a process that was killed."""


@dataclass(frozen=True)
class RunState:
    """A run after ``step`` steps."""

    step: int
    tensors: Mapping[str, Tensor]


@contextmanager
def only_trainer(folder: Path) -> Iterator[None]:
    """Hold a run's folder, which is made if need be; the operating system lets go of a killed trainer's.

    Raises TrainingError when another trainer holds it, and OutputError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A run's moments may be heard by one thread and its end by another.
        lock = FileLock(folder / LOCK_NAME, timeout=0, thread_local=False)
        lock.acquire()
    except Timeout:
        raise TrainingError(
            f"Another trainer already works on the run in {folder}; wait until it is done, or stop it."
        ) from None
    except OSError as error:
        raise OutputError(f"The run's folder {folder} cannot be used: {error.strerror}.") from error
    try:
        yield
    finally:
        lock.release()


def identity(
    request: TrainingRequest, data_digest: str, base_sha256: str, files: Mapping[str, str], compute: Compute
) -> str:
    """The digest of all that a run's weights depend on; a state of another run is not gone on with.

    ``files`` has the SHA-256 of the files that options name, by option.  The precision is that of ``compute``, what
    "auto" became.  Its threads count where they share a sum, which is when a batch has one part.
    """
    plain = {name: value for name, value in request.to_dict().items() if name not in NOT_IDENTITY}
    plain |= {"precision": compute.dtype_name, "options": {**plain["options"], **files}}
    threads = compute.threads if request.parts == 1 else None
    text = json.dumps([plain, data_digest, base_sha256, compute.device.type, threads], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save(folder: Path, run: str, state: RunState) -> None:
    """Write the state of run ``run`` (its identity) into its folder.  Raises OutputError (disk full)."""
    write_tensors(folder / FILE_NAME, state.tensors, {"run": run, "step": str(state.step)})


def load(folder: Path, run: str) -> RunState | None:
    """The state of run ``run`` in its folder, None when there is none yet.

    Raises CheckpointError when it is damaged or of a run of another identity.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"The training state {path} is damaged ({error}); delete it to begin anew.") from error
    if metadata.get("run") != run:
        raise CheckpointError(
            f"The training state in {folder} is of a run with other settings, pictures or another base model, or in "
            "another precision, on another device or number of threads; go on with the same ones, or begin anew in "
            "another folder."
        )
    return RunState(int(metadata["step"]), tensors)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file so that at every moment the old one or the new one is there.  Raises OutputError."""
    _whole(path, lambda unfinished: write_file(unfinished, tensors, metadata))


def write_whole(path: Path, data: bytes) -> None:
    """Write any file of a run in the same way.  Raises OutputError."""
    _whole(path, lambda unfinished: unfinished.write_bytes(data))


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            if time.time() - leftover.stat().st_mtime > LEFT_BEHIND_S:
                leftover.unlink(missing_ok=True)
        write(unfinished)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OutputError(f"{path.name} cannot be written to {path.parent} ({error}); is the disk full?") from error
