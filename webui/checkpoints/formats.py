"""A safetensors file: its header checked before a byte is trusted, its tensors read by memory map one at a time.

Format (huggingface/safetensors, README.md): 8 bytes little-endian header length, a JSON header, then tensor bytes.
Torch is imported only when a tensor is read, so that the server process can look at headers without it.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from webui.errors import CheckpointError, NotFoundError, UnsafeFileError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_HEADER = 100 * 1024 * 1024
"""Largest header in bytes that is read, the limit of the reference implementation."""

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the header describes it: dtype name, shape, and its byte range after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """Names, shapes and metadata of a file: all that is needed to recognise it."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_start: int

    def shapes(self, prefix: str = "") -> dict[str, tuple[int, ...]]:
        """Shape by name for the tensors below ``prefix``, with the prefix taken off."""
        return {name[len(prefix) :]: info.shape for name, info in self.tensors.items() if name.startswith(prefix)}


def refuse_pickle(path: Path) -> None:
    """Raise UnsafeFileError for a file that is a pickle by name or by its first bytes."""
    looks_like_pickle = path.suffix.lower() in PICKLE_SUFFIXES
    if not looks_like_pickle and path.is_file():
        with path.open("rb") as file:
            start = file.read(4)
        looks_like_pickle = start[:2] == b"\x80\x02" or start == b"PK\x03\x04"
    if looks_like_pickle:
        raise UnsafeFileError(
            f"{path.name} is a pickle file, which can run any program when it is opened, so it was not opened. "
            "Use the .safetensors form of the same model; most model pages offer it beside the .ckpt."
        )


def read_header(path: Path) -> Header:
    """The checked header of a safetensors file.

    Raises CheckpointError when the file is damaged or lies about itself (lengths, overlaps, unknown dtypes),
    UnsafeFileError when it is a pickle, NotFoundError when it is not there.
    """
    refuse_pickle(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = _header_length(path, file.read(8), size)
            raw = file.read(length)
    except FileNotFoundError:
        raise NotFoundError(f"The model file {path.name} is not there any more; press Refresh.") from None
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}.") from error
    try:
        entries = json.loads(raw, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} is damaged: its header is not valid JSON ({error}).") from None
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path.name} is damaged: its header is not a table of tensors.")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path.name} is damaged: its metadata is not a table of texts.")
    data_size = size - 8 - length
    tensors = {name: _tensor_info(path, name, entry, data_size) for name, entry in entries.items()}
    _check_layout(path, tensors, data_size)
    return Header(tensors, metadata, 8 + length)


def _header_length(path: Path, prefix: bytes, size: int) -> int:
    if len(prefix) < 8:
        raise CheckpointError(f"{path.name} has only {size} bytes; a model file starts with an 8-byte header length.")
    (length,) = struct.unpack("<Q", prefix)
    if length > min(MAX_HEADER, size - 8):
        raise CheckpointError(
            f"{path.name} is no whole safetensors file: its header claims {length} bytes, the file has {size}. "
            "If the download was cut off, fetch it again."
        )
    return int(length)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _tensor_info(path: Path, name: str, entry: Any, data_size: int) -> TensorInfo:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        fits = (
            all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end))
            and begin <= end <= data_size
            and end - begin == math.prod(shape) * ITEM_BYTES[dtype]
        )
    except (TypeError, KeyError, ValueError):
        fits = False
    if not fits:
        raise CheckpointError(
            f"{path.name} is damaged: the tensor {name!r} is {entry!r}, which does not fit {data_size} bytes of data."
        )
    return TensorInfo(dtype, shape, begin, end)


def _check_layout(path: Path, tensors: Mapping[str, TensorInfo], data_size: int) -> None:
    position = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != position:
            raise CheckpointError(f"{path.name} is damaged: the tensor {name!r} overlaps another or leaves a gap.")
        position = info.end
    if position != data_size:
        raise CheckpointError(
            f"{path.name} is damaged: {data_size - position} bytes follow the last tensor; fetch it again."
        )


@dataclass(frozen=True)
class SafetensorsFile:
    """An opened model file.  Tensors are copied out of a memory map, one at a time, straight to the wanted dtype."""

    path: Path
    header: Header

    @classmethod
    def open(cls, path: Path) -> Self:
        """Check the header and return the file.  Errors as :func:`read_header`."""
        return cls(path, read_header(path))

    def load(self, prefix: str, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """The tensors below ``prefix`` with the prefix taken off; floats become ``dtype`` on ``device``.

        Peak memory is the result plus one tensor, because the file's pages can be dropped by the kernel at any time.
        """
        return dict(self._load(prefix, dtype, device))

    def _load(self, prefix: str, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        from safetensors import safe_open

        names = sorted(
            (name for name in self.header.tensors if name.startswith(prefix)),
            key=lambda name: self.header.tensors[name].begin,
        )
        with safe_open(self.path, framework="pt", device="cpu") as file:
            for name in names:
                tensor = file.get_tensor(name)
                wanted = dtype if tensor.is_floating_point() else tensor.dtype
                # copy=True: a tensor that shared the map would keep the file open and change when the file does.
                yield name[len(prefix) :], tensor.to(device=device, dtype=wanted, copy=True)
