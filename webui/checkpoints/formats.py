"""Model files of every form: which loader reads a file, and the file opened with it.

``safetensors`` and ``torch_files`` are built in and registered like those of extensions.  Which loader is asked:

- With a suffix of a built-in form, the file's first bytes decide among the built-in forms.  So nothing that begins as
  a pickle or as safetensors and is called so can be taken from the readers that run nothing of it.  Only a file that
  begins as neither goes to an extension's loader that names the suffix as its own (a ``.bin`` of another program).
- With any other suffix, the extensions' loaders that name it are asked first: an ``.npz`` begins as a zip, as what
  torch saves does, and a form whose ninth byte happens to be a brace is no safetensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from webui.checkpoints.loaders import Header, Loader, Outline, Outlining
from webui.checkpoints.safetensors import Safetensors
from webui.checkpoints.torch_files import TorchFiles
from webui.errors import CheckpointError, NotFoundError, WebUIError
from webui.hooks import hookimpl

if TYPE_CHECKING:
    import torch
    from torch import Tensor

START_BYTES = 64
"""So many of a file's first bytes a loader sees to recognise it."""


@hookimpl
def register_loaders() -> Sequence[Loader]:
    """The built-in forms; no file begins as both."""
    return BUILT_IN.built_in


@dataclass(frozen=True, eq=False)
class Formats:
    """The forms of model files that can be read: the built-in ones, and those that extensions ``added``."""

    built_in: tuple[Loader, ...]
    added: tuple[Loader, ...] = ()

    @cached_property
    def suffixes(self) -> tuple[str, ...]:
        """The endings of model files, in small letters; of two files of one name that with the earlier one is meant."""
        return tuple(dict.fromkeys(suffix for loader in (*self.built_in, *self.added) for suffix in loader.suffixes))

    def loader_of(self, path: Path) -> Loader:
        """The loader that reads a file.

        Of files that no loader recognises it is the built-in one of the suffix, which says what is wrong with them.
        Raises CheckpointError for one with a suffix of extensions' loaders, NotFoundError when it is not there.
        """
        suffix = path.suffix.lower()
        added = tuple(loader for loader in self.added if suffix in loader.suffixes)
        owners = [loader for loader in self.built_in if suffix in loader.suffixes]
        with _told(path), path.open("rb", buffering=0) as file:
            start = file.read(START_BYTES) or b""
        for loader in (*self.built_in, *added) if owners else (*added, *self.built_in):
            if loader.recognises(start, path):
                return loader
        if added and not owners:
            names = " or ".join(loader.name for loader in added)
            raise CheckpointError(f"{path.name} is no {names} file: it does not begin as one; fetch it again.")
        return (*owners, *self.built_in)[0]

    def read_header(self, path: Path) -> Header:
        """The checked header of a model file.

        Raises CheckpointError when the file is damaged or lies about itself, UnsafeFileError when it is a pickle that
        asks for more than tensors and plain values, NotFoundError when it is not there.
        """
        return self.open(path).header

    def read_outline(self, path: Path) -> Outline:
        """What an index of many files needs to tell what a file is; errors as :meth:`read_header`.

        Never a reason to read tensors: that begins with :meth:`open`.
        """
        loader = self.loader_of(path)
        with _told(path):
            return loader.outline(path) if isinstance(loader, Outlining) else Outline.of(loader.header(path))

    def open(self, path: Path) -> WeightsFile:
        """The file, its header checked.  Errors as :meth:`read_header`."""
        loader = self.loader_of(path)
        with _told(path):
            return WeightsFile(path, loader.header(path), loader)

    def added_for(self, paths: Iterable[Path]) -> set[str]:
        """The names of the loaders of extensions that read any of these files, for the recipe."""
        if not self.added:
            return set()
        found = set()
        for path in paths:
            with suppress(WebUIError):  # gone meanwhile
                found.add(self.loader_of(path).name)
        return found & {loader.name for loader in self.added}


BUILT_IN = Formats((Safetensors(), TorchFiles()))
"""The built-in forms alone, for whoever has no extensions."""


@dataclass(frozen=True)
class WeightsFile:
    """An opened model file of any form.  Its tensors are read one by one, straight to the wanted dtype."""

    path: Path
    header: Header
    loader: Loader

    def load(
        self, prefix: str, dtype: torch.dtype, device: torch.device, wanted: Callable[[str], bool] = lambda name: True
    ) -> dict[str, Tensor]:
        """The ``wanted`` tensors below ``prefix`` with the prefix taken off; floats become ``dtype`` on ``device``.

        Peak memory is the result plus a piece of a tensor, or one tensor in forms of extensions.  Raises
        CheckpointError when the file changed since it was opened.
        """
        names = [name for name in self.header.tensors if name.startswith(prefix) and wanted(name[len(prefix) :])]
        with _told(self.path):
            read = self.loader.read(self.path, self.header, names, dtype, device)
            return {name[len(prefix) :]: tensor for name, tensor in read}


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """The system's errors as those for people."""
    try:
        yield
    except FileNotFoundError:
        raise NotFoundError(f"The model file {path.name} is not there any more; press Refresh.") from None
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror or error}.") from error
