"""Loaders of extensions: what one does wrong is an error of the file it was asked for, which names the extension.

Such an error never switches the extension off: a models folder may hold any number of damaged files.  A loader that
hangs or ends the process is treated as any call of an extension is (``calling``).  Tensors are copied as they come, so
that a loader may hand out its own buffers, and checked against the header, so that one that lies is found out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from webui.checkpoints.loaders import ITEM_BYTES, TORCH_NAMES, Header, Loader, TensorInfo
from webui.checkpoints.notes import PICTURE_SUFFIXES
from webui.errors import CheckpointError, WebUIError
from webui.plugins.calling import FAILED, Caller
from webui.plugins.conduct import Conduct, Problem, place_of, printable, said

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LOADERS = "register_loaders"
MAX_TENSORS = 200_000
BESIDE_MODELS = tuple(f".{one}" for one in (*PICTURE_SUFFIXES, "json", "txt", "yaml", "info", "md"))
"""What lies beside model files and tells about them is none itself."""


class _Wrong(Exception):
    """What a loader answered cannot be used; the words follow those that name it."""


@dataclass(frozen=True)
class _Raised:
    error: Exception


@dataclass(frozen=True, eq=False)
class GuardedLoader:
    """The loader of an extension, as one that raises nothing but CheckpointError and tells the truth.

    ``owner`` is the plugin's name.
    """

    loader: Loader
    name: str
    suffixes: tuple[str, ...]
    owner: str
    conduct: Conduct
    caller: Caller

    def recognises(self, start: bytes, path: Path) -> bool:
        """What the loader says of a file."""
        return bool(self._asked("recognises", path, lambda: bool(self.loader.recognises(start, path))))

    def header(self, path: Path) -> Header:
        """A copy of the loader's header, in which everything is of its type."""
        header: Header = self._asked("header", path, lambda: _plain(self.loader.header(path)))
        return header

    def read(
        self, path: Path, header: Header, names: Sequence[str], dtype: torch.dtype, device: torch.device
    ) -> Iterator[tuple[str, Tensor]]:
        """The tensors as the loader gives them, each once and of the header's shape; floats in ``dtype``."""
        left = set(names)
        given = self._asked("read", path, lambda: iter(self.loader.read(path, header, names, dtype, device)))
        while left:
            name, tensor = self._asked("read", path, lambda: _next(given, left, header, dtype, device))
            left.remove(name)
            yield name, tensor

    def _asked(self, doing: str, path: Path, function: Callable[[], Any]) -> Any:
        """What a function of the loader answers.  Raises CheckpointError; what tells of too little memory, as it is."""

        def answer() -> Any:
            try:
                return function()
            except Exception as error:
                return _Raised(error)

        bound = self.caller.bind(f"{doing} of {self.name}", self.owner, answer, (), self.conduct)
        result = self.caller.call(bound, {})
        if result is FAILED:
            why = self.conduct.why or f"The extension {self.conduct.name} failed."
            raise CheckpointError(f"{path.name} cannot be read as {self.name}: {why}")
        if isinstance(result, _Raised):
            raise self._told(path, result.error) from result.error
        return result

    def _told(self, path: Path, error: Exception) -> Exception:
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            return error
        named = f"the loader {self.name} of the extension {self.conduct.name}"
        if isinstance(error, WebUIError):
            return CheckpointError(f"{path.name} was refused by {named}: {printable(error)}")
        place = place_of(error, self.conduct)
        what = printable(error) if isinstance(error, _Wrong) else f"failed: {said(error)}{place}"
        sentence = f"{path.name} cannot be read: {named} {what}."
        problem = Problem(
            sentence=sentence, extension=self.conduct.name, hook=LOADERS, file=place.file, line=place.line
        )
        self.caller.journal.note(problem)
        return CheckpointError(sentence)


def suffixes_of(loader: Loader) -> tuple[str, ...]:
    """The suffixes of a loader.  Raises ValueError with what is wrong with them."""
    given = loader.suffixes
    if not isinstance(given, list | tuple) or not given:
        raise ValueError("its suffixes are no list of endings")
    for suffix in given:
        if type(suffix) is not str or not re.fullmatch(r"\.[a-z0-9_]{1,20}", suffix):
            raise ValueError(f'its suffix {printable(suffix)} is not one of small letters and digits, as ".npz" is')
        if suffix in BESIDE_MODELS:
            raise ValueError(f"files that end in {suffix} lie beside models and tell about them")
    return tuple(given)


def _plain(header: object) -> Header:
    if not isinstance(header, Header):
        raise _Wrong(f"answered {_kind(header)} for a header, expected a Header")
    for table in (header.tensors, header.metadata):
        if not isinstance(table, Mapping) or len(table) > MAX_TENSORS:
            raise _Wrong(f"answered a header that is no table of at most {MAX_TENSORS} names")
    for key, value in header.metadata.items():
        if type(key) is not str or type(value) is not str:
            raise _Wrong(f"answered metadata in which {printable(key)!r} is {_kind(value)}, expected a str")
    return Header({_name(name): _info(name, info) for name, info in header.tensors.items()}, dict(header.metadata))


def _name(name: object) -> str:
    if type(name) is not str:
        raise _Wrong(f"called a tensor {printable(name)}, which is {_kind(name)}, expected a str")
    return name


def _info(name: object, info: object) -> TensorInfo:
    if not isinstance(info, TensorInfo) or info.dtype not in ITEM_BYTES:
        raise _Wrong(f"described the tensor {printable(name)!r} as {printable(info)}, which has no dtype that is known")
    shape = tuple(info.shape)
    if not all(type(side) is int and side >= 0 for side in shape):
        raise _Wrong(f"described the tensor {printable(name)!r} with the shape {printable(shape)}")
    return TensorInfo(info.dtype, shape)


def _next(
    given: Iterator[Any], left: set[str], header: Header, dtype: torch.dtype, device: torch.device
) -> tuple[str, Tensor]:
    """The next pair of a loader's reading, its tensor copied to where it is wanted."""
    pair = next(given, None)
    if pair is None:
        raise _Wrong(f"did not give {len(left)} tensors that its header names ({printable(min(left))!r})")
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise _Wrong(f"gave {_kind(pair)}, expected pairs of a name and a tensor")
    name, tensor = pair
    if type(name) is not str or name not in left:
        raise _Wrong(f"gave the tensor {printable(name)!r}, for which it was not asked, or twice")
    return name, _placed(name, tensor, header.tensors[name], dtype, device)


def _placed(name: str, given: object, info: TensorInfo, dtype: torch.dtype, device: torch.device) -> Tensor:
    import torch

    stored: torch.dtype = getattr(torch, TORCH_NAMES[info.dtype])
    wanted = dtype if stored.is_floating_point else stored
    tensor = torch.from_numpy(np.require(given, requirements="W")) if isinstance(given, np.ndarray) else given
    if not isinstance(tensor, torch.Tensor):
        raise _Wrong(f"gave the tensor {printable(name)!r} as {_kind(tensor)}, expected a tensor or an array")
    if tuple(tensor.shape) != info.shape or tensor.dtype not in (stored, wanted):
        raise _Wrong(
            f"gave the tensor {printable(name)!r} as {tensor.dtype} of shape {tuple(tensor.shape)}; its header says "
            f"{stored} of shape {info.shape}"
        )
    return torch.empty(info.shape, dtype=wanted, device=device).copy_(tensor.detach().as_subclass(torch.Tensor))


def _kind(value: object) -> str:
    return f"a {printable(type(value).__name__)}"
