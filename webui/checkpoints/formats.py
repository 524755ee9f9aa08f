"""Model files of every form: a header checked before a byte is trusted, tensors read straight to the wanted dtype.

safetensors (huggingface/safetensors, README.md): 8 bytes little-endian header length, a JSON header, tensor bytes.
What ``torch.save`` writes (.ckpt, .pt, .pth, .bin) is followed by ``pickles``, which runs nothing of it, and gets the
same kind of header.  Torch is imported only when a tensor is read, so that the server process can look at headers
without it.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from webui.checkpoints import pickles
from webui.checkpoints.pickles import Placeholder, Saved, StoredTensor
from webui.errors import CheckpointError, NotFoundError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_HEADER = 100 * 1024 * 1024
"""Largest header in bytes that is read, the limit of the reference implementation."""

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
TORCH_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
PIECE_BYTES = 8 * 1024 * 1024
"""So much of a tensor is read and converted at a time."""
PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
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
class TensorInfo:
    """One tensor as the header describes it: dtype name, shape, and its byte range after the header.

    ``strides``, counted in numbers, are given where these do not lie one after the other.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    strides: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Header:
    """Names, shapes and metadata of a file: all that is needed to recognise it.

    Of a pickle, a name is the path of keys to the tensor, with dots between, below the wrapper around the weights; the
    metadata are its plain values at the top, those that are no texts as JSON.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_start: int

    def shapes(self, prefix: str = "") -> dict[str, tuple[int, ...]]:
        """Shape by name for the tensors below ``prefix``, with the prefix taken off."""
        return {name[len(prefix) :]: info.shape for name, info in self.tensors.items() if name.startswith(prefix)}


def read_header(path: Path) -> Header:
    """The checked header of a model file, whose form is known by its first bytes.

    Raises CheckpointError when the file is damaged or lies about itself (lengths, overlaps, unknown dtypes),
    UnsafeFileError when it is a pickle that asks for more than tensors and plain values, NotFoundError when it is not
    there.
    """
    try:
        with path.open("rb") as file:
            start, stat = file.read(9), os.fstat(file.fileno())
        if pickles.starts_like_pickle(start):
            return _pickle_header(path, stat.st_size, stat.st_mtime_ns)
        if path.suffix.lower() in PICKLE_SUFFIXES and start[8:] != b"{":
            raise CheckpointError(
                f"{path.name} is no file that torch saved: it begins neither as a zip nor as a pickle; fetch it again."
            )
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


@dataclass(frozen=True)
class Outline:
    """A file's metadata and the shapes of its tensors by name, none of which is checked against its bytes.

    A safetensors header is taken apart only when somebody asks for the shapes.
    """

    metadata: Mapping[str, str]
    _shapes: Mapping[str, tuple[int, ...]] | bytes

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape by name; nothing for a header that makes no sense."""
        if not isinstance(self._shapes, bytes):
            return self._shapes
        try:
            entries = json.loads(self._shapes)
            entries.pop("__metadata__", None)
            return {name: tuple(entry["shape"]) for name, entry in entries.items()}
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            return {}


def read_outline(path: Path) -> Outline:
    """What an index of many files needs, in a tenth of the time of :func:`read_header`, to tell what a file is.

    Raises the same errors for what it sees: a pickle that asks for more than tensors, a file that is cut off, a header
    that is none.  Never a reason to read tensors: that begins with :func:`read_header`.
    """
    try:
        with path.open("rb", buffering=0) as file:
            start, size = file.read(9), os.fstat(file.fileno()).st_size
            plain = start[8:] == b"{" and not pickles.starts_like_pickle(start)
            raw = start[8:] + (file.read(_header_length(path, start[:8], size) - 1) or b"") if plain else b""
    except FileNotFoundError:
        raise NotFoundError(f"The model file {path.name} is not there any more; press Refresh.") from None
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}.") from error
    if not plain:
        header = read_header(path)
        return Outline(header.metadata, header.shapes())
    metadata = _metadata_first(raw)
    ends = map(int, _ENDS.findall(raw))
    if metadata is None or 8 + len(raw) + max(ends, default=0) != size:
        header = read_header(path)  # careful and slow; it says what is wrong
        return Outline(header.metadata, header.shapes())
    return Outline({name: value for name, value in metadata.items() if isinstance(value, str)}, raw)


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


@dataclass(frozen=True)
class SafetensorsFile:
    """An opened model file of any form.  Tensors are read in pieces, straight to the wanted dtype.

    Read, not mapped: a map's pages count as memory of the process beside the weights made from them, and a file that
    is cut off meanwhile would end the process instead of giving an error.
    """

    path: Path
    header: Header

    @classmethod
    def open(cls, path: Path) -> Self:
        """Check the header and return the file.  Errors as :func:`read_header`."""
        return cls(path, read_header(path))

    def load(
        self, prefix: str, dtype: torch.dtype, device: torch.device, wanted: Callable[[str], bool] = lambda name: True
    ) -> dict[str, Tensor]:
        """The ``wanted`` tensors below ``prefix`` with the prefix taken off; floats become ``dtype`` on ``device``.

        Peak memory is the result plus PIECE_BYTES.  Raises CheckpointError when the file changed since it was opened.
        """
        names = [name for name in self.header.tensors if name.startswith(prefix) and wanted(name[len(prefix) :])]
        names.sort(key=lambda name: self.header.tensors[name].begin)
        try:
            with self.path.open("rb", buffering=0) as file:
                return {name[len(prefix) :]: self._read(file, name, dtype, device) for name in names}
        except OSError as error:
            raise CheckpointError(f"{self.path.name} cannot be read: {error.strerror or error}.") from error

    def _read(self, file: BinaryIO, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
        import torch

        info = self.header.tensors[name]
        stored: torch.dtype = getattr(torch, TORCH_NAMES[info.dtype])
        wanted = dtype if stored.is_floating_point else stored
        if info.strides is not None:
            span = torch.empty((info.end - info.begin) // stored.itemsize, dtype=stored)
            self._fill(file, info, span, stored)
            return span.as_strided(info.shape, info.strides).to(device, wanted).contiguous()
        result = torch.empty(info.shape, dtype=wanted, device=device)
        self._fill(file, info, result.view(-1), stored)
        return result

    def _fill(self, file: BinaryIO, info: TensorInfo, flat: Tensor, stored: torch.dtype) -> None:
        """Read a tensor's bytes, piece by piece, into ``flat``."""
        import torch

        piece = memoryview(bytearray(min(PIECE_BYTES, info.end - info.begin)))
        file.seek(self.header.data_start + info.begin)
        for start in range(0, info.end - info.begin, PIECE_BYTES):
            part = piece[: min(PIECE_BYTES, info.end - info.begin - start)]
            self._read_fully(file, part)
            first = start // stored.itemsize
            flat[first : first + len(part) // stored.itemsize].copy_(torch.frombuffer(part, dtype=stored))

    def _read_fully(self, file: BinaryIO, part: memoryview) -> None:
        filled = 0
        while filled < len(part):
            count = file.readinto(part[filled:])  # type: ignore[attr-defined]
            if not count:
                raise CheckpointError(f"{self.path.name} ended while it was read; it was changed meanwhile.")
            filled += count


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
