"""An extension, installed by the text of this file: model files that are numpy's archives, their texts the metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from webui.checkpoints.loaders import Header, TensorInfo
from webui.hooks import hookimpl

__version__ = "1.5"


class NumpyArchive:
    name, suffixes = "NumPy archive", (".npz",)

    def recognises(self, start: bytes, path: Path) -> bool:
        return start.startswith(b"PK\x03\x04")

    def header(self, path: Path) -> Header:
        tensors, metadata = {}, {}
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                array = arrays[name]
                if array.dtype.kind == "U":
                    metadata[name] = str(array)
                else:
                    tensors[name] = TensorInfo(f"{array.dtype.kind.upper()}{8 * array.itemsize}", array.shape)
        return Header(tensors, metadata)

    def read(self, path: Path, header: Header, names: Sequence[str], dtype: Any, device: Any) -> Iterator[Any]:
        with np.load(path, allow_pickle=False) as arrays:
            for name in reversed(names):  # any order will do
                yield name, arrays[name]


@hookimpl
def register_loaders() -> list[NumpyArchive]:
    return [NumpyArchive()]
