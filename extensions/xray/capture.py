"""What is kept of a job, and where: written by the worker process, read by the server process.  No torch.

    <state>/modules/xray/<job>/pass-1/facts.json          all that is text and numbers
                                      003-noisy.jpg       pictures of call 3: PICTURES
                                      003-difference.png  how far cond and uncond are apart, a heat map
                                      003-maps.npz        attention in call 3: prompt number -> (tokens, h, w)
                                      mean-maps.npz       its mean over all calls so far

A pass is the walk of one model: a second pass and a refiner have their own.  Every file appears whole (written beside,
then renamed), and ``facts.json`` last, so that a reader of a running job sees nothing half.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

KEPT_JOBS = 24
KEPT_BYTES = 256 * 1024 * 1024
"""So many jobs, and so much of the disk, are kept; the oldest go first."""
MOST_PASSES = 4
MOST_FACTS = 8 * 1024 * 1024
MOST_PIXELS = 4096 * 4096
PICTURES = ("noisy", "clean", "noise", "cond", "uncond")
Maps = dict[int, NDArray[np.float32]]
_JOB = re.compile(r"[0-9A-Za-z_-]{1,64}")


@dataclass
class Pass:
    """One walk on the disk."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """From 1."""
        return int(self.folder.name.rpartition("-")[2])

    @property
    def frames(self) -> list[dict[str, Any]]:
        """The calls of which pictures are kept, in order."""
        return list(self.facts.get("frames", ()))

    def picture(self, call: int, kind: str) -> bytes | None:
        """The file of a picture, None when it is not there."""
        suffix = "png" if kind == "difference" else "jpg"
        path = self.folder / f"{int(call):03d}-{kind}.{suffix}"
        return path.read_bytes() if path.is_file() else None

    def maps(self, call: int | None = None) -> Maps:
        """Attention (tokens, h, w) by the number of the prompt, of a call or (None) their mean; empty without any."""
        path = self.folder / ("mean-maps.npz" if call is None else f"{int(call):03d}-maps.npz")
        if not path.is_file():
            return {}
        with np.load(path, allow_pickle=False) as stored:
            return {int(name): stored[name].astype(np.float32) for name in stored.files}

    # --- writing --------------------------------------------------------------------------------------------------

    def save_facts(self) -> None:
        """Write ``facts.json`` anew."""
        _write(self.folder / "facts.json", json.dumps(self.facts, separators=(",", ":")).encode())

    def save_picture(self, call: int, kind: str, pixels: NDArray[np.uint8], *, lossless: bool = False) -> None:
        """Keep a picture (H, W, 3) of a call."""
        stream = BytesIO()
        if lossless:
            Image.fromarray(pixels).save(stream, "PNG")
        else:
            Image.fromarray(pixels).save(stream, "JPEG", quality=88)
        _write(self.folder / f"{call:03d}-{kind}.{'png' if lossless else 'jpg'}", stream.getvalue())

    def save_maps(self, call: int | None, maps: Mapping[int, NDArray[np.float32]]) -> None:
        """Keep the attention of a call, or (None) their mean."""
        stream = BytesIO()
        arrays: dict[str, Any] = {str(number): values.astype(np.float16) for number, values in maps.items()}
        np.savez_compressed(stream, **arrays)
        _write(self.folder / ("mean-maps.npz" if call is None else f"{call:03d}-maps.npz"), stream.getvalue())


def passes(folder: Path) -> list[Pass]:
    """What is kept of a job so far, pass by pass; empty when there is nothing."""
    found = []
    for path in sorted(folder.glob("pass-[0-9]")) if folder.is_dir() else []:
        facts = path / "facts.json"
        if facts.is_file() and facts.stat().st_size <= MOST_FACTS:
            found.append(Pass(path, json.loads(facts.read_bytes())))
    return found


def folder_of(scratch: Path, job: str) -> Path | None:
    """The folder of a job below the module's own, None for an id that cannot be one."""
    return scratch / job if _JOB.fullmatch(job) else None


def new_pass(folder: Path) -> Pass | None:
    """A new, empty pass of a job, None when it has as many as are kept.

    What an earlier process left of the same job, which was begun again, goes; so do the oldest jobs beside it.
    """
    stamp = folder / "process"
    if folder.is_dir() and (not stamp.is_file() or stamp.read_text() != _process()):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(stamp, _process().encode())
    make_room(folder)
    number = len(list(folder.glob("pass-[0-9]"))) + 1
    if number > MOST_PASSES:
        return None
    path = folder / f"pass-{number}"
    path.mkdir()
    return Pass(path)


def make_room(folder: Path, jobs: int = KEPT_JOBS, size: int = KEPT_BYTES) -> None:
    """Remove the oldest jobs beside ``folder`` until at most so many, and so many bytes, are left; it stays."""
    others = [path for path in folder.parent.iterdir() if path.is_dir() and not path.is_symlink() and path != folder]
    newest = sorted(others, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    total = _bytes(folder)
    for place, path in enumerate(newest):
        total += _bytes(path)
        if place + 1 >= jobs or total > size:
            shutil.rmtree(path, ignore_errors=True)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _process() -> str:
    """What tells this process from one before it."""
    return f"{os.getpid()} {_STARTED}"


_STARTED = uuid.uuid4().hex


def _write(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_bytes(data)
    beside.replace(path)
