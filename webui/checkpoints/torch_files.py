"""What ``torch.save`` writes (.ckpt, .pt, .pth, .bin), as a form of model files with the same kind of header.

The pickle in it is followed by ``pickles``, which runs nothing of it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webui.checkpoints import pickles
from webui.checkpoints.loaders import ITEM_BYTES, Header, TensorInfo
from webui.checkpoints.pickles import Placeholder, Saved, StoredTensor
from webui.checkpoints.pieces import read_pieces
from webui.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WRAPPERS = ("state_dict", "params_ema", "params", "model", "module", "net")
"""Names under which programs put the weights beside other things, in the order in which they are looked for."""
MAX_VALUES = 200_000
"""So many values of a pickle are looked at; a few lists that hold each other many times could stand for any number."""
MAX_DEPTH = 8
MAX_KEY = 1000
"""Longest key of a pickle, in characters, that becomes part of a tensor's name."""
MAX_SHARED = 4
"""Tensors may use the same bytes of a file; in all they have at most so many times the file's size."""


@dataclass(frozen=True)
class TorchFiles:
    """The form as a :class:`~webui.checkpoints.loaders.Loader`."""

    name: str = "torch"
    suffixes: tuple[str, ...] = (".ckpt", ".pt", ".pth", ".bin")

    def recognises(self, start: bytes, path: Path) -> bool:
        """By the beginning of a zip or a pickle."""
        return pickles.starts_like_pickle(start)

    def header(self, path: Path) -> Header:
        """The header that the pickle stands for.

        Raises CheckpointError when the file is damaged, UnsafeFileError when its pickle asks for more than tensors and
        plain values.
        """
        with path.open("rb") as file:
            start, stat = file.read(9), os.fstat(file.fileno())
        if not pickles.starts_like_pickle(start):
            raise CheckpointError(
                f"{path.name} is no file that torch saved: it begins neither as a zip nor as a pickle; fetch it again."
            )
        return _pickle_header(path, stat.st_size, stat.st_mtime_ns)

    def read(
        self, path: Path, header: Header, names: Sequence[str], dtype: torch.dtype, device: torch.device
    ) -> Iterator[tuple[str, Tensor]]:
        """The tensors, straight into the wanted dtype, piece by piece."""
        return read_pieces(path, header, names, dtype, device)


@lru_cache(maxsize=32)  # following a checkpoint's pickle takes 0.1 s; a page asks several times
def _pickle_header(path: Path, size: int, mtime_ns: int) -> Header:
    saved = pickles.read(path)
    top = saved.data if isinstance(saved.data, dict) else {}
    try:
        tensors = {
            name: TensorInfo(tensor.dtype, tensor.shape, *pickles.place_of(tensor, saved.places))
            for name, tensor in _named_once(_weights(saved))
        }
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path.name} is damaged: {str(error)[:200]}; fetch it again.") from error
    if sum(math.prod(info.shape) * ITEM_BYTES[info.dtype] for info in tensors.values()) > MAX_SHARED * size:
        raise CheckpointError(f"{path.name} was refused: its tensors are far larger than the file.")
    plain = {name: _plain_text(value) for name, value in top.items() if isinstance(name, str)}
    return Header(tensors, {name: text for name, text in plain.items() if text is not None}, 0)


def _weights(saved: Saved) -> Any:
    """What stands below the wrapper that some programs put around the weights, or all of it."""
    data = saved.data
    while isinstance(data, dict):
        inner = (data.get(name) for name in WRAPPERS)
        found = next((each for each in inner if isinstance(each, dict) and each is not data), None)
        if found is None or any(isinstance(value, StoredTensor) for value in data.values()):
            break
        data = found
    return data


def _named_once(data: Any) -> Iterator[tuple[str, StoredTensor]]:
    seen: set[str] = set()
    for count, (name, value) in enumerate(_values(data)):
        if count > MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES} values")
        if isinstance(value, StoredTensor):
            if name in seen:
                raise ValueError(f"it holds two tensors called {name[:200]!r}")
            seen.add(name)
            yield name, value


def _values(data: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every value in nested dicts and lists, and the path of keys to it."""
    yield path, data
    items = data.parameters if isinstance(data, Placeholder) else data
    pairs = items.items() if isinstance(items, dict) else enumerate(items) if isinstance(items, list | tuple) else ()
    for key, value in pairs:
        if isinstance(key, str | bytes) and len(key) > MAX_KEY:
            raise ValueError(f"a name has {len(key)} letters")
        if depth < MAX_DEPTH:
            yield from _values(value, f"{path}.{key}" if path else str(key), depth + 1)


def _plain_text(value: Any) -> str | None:
    """A plain value, or a list of them, as a text; None for all else."""
    if isinstance(value, str):
        return value
    values = value if isinstance(value, list | tuple) else [value]
    if all(isinstance(each, str | bool | float) or (isinstance(each, int) and abs(each) < 2**63) for each in values):
        return json.dumps(value)
    return None
