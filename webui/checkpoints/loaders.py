"""What a form of model files is: how such a file is known, what it holds, and how its tensors are read.

A :class:`Loader` is one form, registered through ``register_loaders``: safetensors and what torch saved are built in
(``safetensors``, ``torch_files``), an extension may add others.  ``formats`` chooses among them.  Torch is imported
only when a tensor is read, so that the server process can look at headers without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

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


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the header describes it: its dtype, a key of ``ITEM_BYTES``, and its shape.

    The built-in forms note the byte range after the header, too, and ``strides``, counted in numbers, where these do
    not lie one after the other.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int = 0
    end: int = 0
    strides: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Header:
    """Names, shapes and metadata of a file: all that is needed to recognise it.

    Of a pickle, a name is the path of keys to the tensor, with dots between, below the wrapper around the weights; the
    metadata are its plain values at the top, those that are no texts as JSON.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_start: int = 0

    def shapes(self, prefix: str = "") -> dict[str, tuple[int, ...]]:
        """Shape by name for the tensors below ``prefix``, with the prefix taken off."""
        return {name[len(prefix) :]: info.shape for name, info in self.tensors.items() if name.startswith(prefix)}


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

    @classmethod
    def of(cls, header: Header) -> Outline:
        """What a header has of it."""
        return cls(header.metadata, header.shapes())


class Loader(Protocol):
    """A form of model files.  ``suffixes`` are the endings, in small letters, by which the models folder lists them.

    A loader keeps nothing of a file between two calls: files change, and several threads ask.  An error of its own for
    people is a CheckpointError; the path that it is given exists, or did a moment ago.
    """

    @property
    def name(self) -> str: ...
    @property
    def suffixes(self) -> Sequence[str]: ...

    def recognises(self, start: bytes, path: Path) -> bool:
        """Whether a file that begins with ``start`` (64 bytes, or all there are) is of this form."""
        ...

    def header(self, path: Path) -> Header:
        """What the file says it holds, checked as far as no tensor need be read.  No torch: the server asks, too."""
        ...

    def read(
        self, path: Path, header: Header, names: Sequence[str], dtype: torch.dtype, device: torch.device
    ) -> Iterator[tuple[str, Any]]:
        """Each of the tensors ``names`` once, in any order, with its name: one after the other, never all in memory.

        ``header`` is what :meth:`header` answered; shapes are those it has.  A tensor, or a numpy array, of floats may
        be in the header's dtype or in ``dtype`` already, on the CPU or on ``device`` already; all others are of the
        header's dtype.
        """
        ...


@runtime_checkable
class Outlining(Protocol):
    """What a loader may have beside the rest: a fast look for the index of many files."""

    def outline(self, path: Path) -> Outline:
        """As the header, unchecked."""
        ...
