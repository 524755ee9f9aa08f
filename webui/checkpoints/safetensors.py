"""The form safetensors: a header checked before a byte is trusted, and the tensors' bytes behind it.

huggingface/safetensors, README.md: 8 bytes little-endian header length, a JSON header, tensor bytes.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webui.checkpoints.loaders import ITEM_BYTES, TORCH_NAMES, Header, Outline, TensorInfo
from webui.checkpoints.pieces import read_pieces
from webui.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_HEADER = 100 * 1024 * 1024
"""Largest header in bytes that is read, the limit of the reference implementation."""


@dataclass(frozen=True)
class Safetensors:
    """The form as a :class:`~webui.checkpoints.loaders.Loader`."""

    name: str = "safetensors"
    suffixes: tuple[str, ...] = (".safetensors",)

    def recognises(self, start: bytes, path: Path) -> bool:
        """By the brace that the header begins with."""
        return start[8:9] == b"{"

    def header(self, path: Path) -> Header:
        """The checked header.

        Raises CheckpointError when the file is damaged or lies about itself (lengths, overlaps, unknown dtypes).
        """
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = _header_length(path, file.read(8), size)
            raw = file.read(length)
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

    def outline(self, path: Path) -> Outline:
        """The outline in a tenth of the time of :meth:`header`, which is asked where something looks wrong.

        Raises the same errors for what it sees: a file that is cut off, a header that is none.
        """
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            raw = file.read(_header_length(path, file.read(8), size)) or b""
        metadata = _metadata_first(raw)
        ends = map(int, _ENDS.findall(raw))
        if metadata is None or 8 + len(raw) + max(ends, default=0) != size:
            return Outline.of(self.header(path))  # careful and slow; it says what is wrong
        return Outline({name: value for name, value in metadata.items() if isinstance(value, str)}, raw)

    def read(
        self, path: Path, header: Header, names: Sequence[str], dtype: torch.dtype, device: torch.device
    ) -> Iterator[tuple[str, Tensor]]:
        """The tensors, straight into the wanted dtype, piece by piece."""
        return read_pieces(path, header, names, dtype, device)


_ENDS = re.compile(rb'"data_offsets"\s*:\s*\[\s*\d{1,18}\s*,\s*(\d{1,18})')
_DECODER = json.JSONDecoder()
_BEFORE_METADATA = re.compile(r'\{\s*"__metadata__"\s*:\s*')


def _metadata_first(raw: bytes) -> dict[str, Any] | None:
    """The metadata of a header in which they come first, as every writer has them; None for others."""
    try:
        text = raw.decode()
        start = _BEFORE_METADATA.match(text)
        if start is None or not text.rstrip().endswith("}"):
            return None
        metadata, _ = _DECODER.raw_decode(text, start.end())
    except (ValueError, RecursionError):
        return None
    return metadata if isinstance(metadata, dict) else None


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
            isinstance(entry["shape"], list)
            and all(type(n) is int and n >= 0 for n in (*shape, begin, end))
            and begin <= end <= data_size
            and end - begin == math.prod(shape) * ITEM_BYTES[dtype]
        )
    except (TypeError, KeyError, ValueError):
        fits = False
    if not fits:
        told = repr(entry)
        raise CheckpointError(
            f"{path.name} is damaged: the tensor {name[:200]!r} is {told[:200]}, "
            f"which does not fit {data_size} bytes of data."
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


def write_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file and bring it to the disk; the same tensors and metadata give the same bytes.

    (The reference implementation writes metadata in a new order each time.)  Tensors stand in the order of their item
    size, larger ones first, then of their names, each aligned to its items; the header is filled up to 8 bytes.
    """
    import torch

    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    codes = {getattr(torch, name): code for code, name in TORCH_NAMES.items() if hasattr(torch, name)}
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for name in names:
        tensor = tensors[name]
        end = position + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": codes[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            flat = tensors[name].detach().cpu().contiguous().view(-1)
            file.write(flat.view(torch.uint8).numpy().data if len(flat) else b"")
        file.flush()
        os.fsync(file.fileno())
