"""Tensors read from where a header says that their bytes lie, piece by piece and straight to the wanted dtype.

Read, not mapped: a map's pages count as memory of the process beside the weights made from them, and a file that is cut
off meanwhile would end the process instead of giving an error.  Called by the built-in forms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from webui.checkpoints.loaders import TORCH_NAMES, Header, TensorInfo
from webui.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PIECE_BYTES = 8 * 1024 * 1024
"""So much of a tensor is read and converted at a time."""


def read_pieces(
    path: Path, header: Header, names: Sequence[str], dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """The tensors ``names`` in the order in which they lie in the file; floats become ``dtype`` on ``device``.

    Peak memory is the result plus PIECE_BYTES.  Raises CheckpointError when the file became shorter meanwhile, OSError.
    """
    with path.open("rb", buffering=0) as file:
        source = _Source(path, file, header.data_start)
        for name in sorted(names, key=lambda name: header.tensors[name].begin):
            yield name, source.read(header.tensors[name], dtype, device)


@dataclass(frozen=True)
class _Source:
    """An open file whose tensors begin at ``data_start``."""

    path: Path
    file: BinaryIO
    data_start: int

    def read(self, info: TensorInfo, dtype: torch.dtype, device: torch.device) -> Tensor:
        import torch

        stored: torch.dtype = getattr(torch, TORCH_NAMES[info.dtype])
        wanted = dtype if stored.is_floating_point else stored
        if info.strides is not None:
            span = torch.empty((info.end - info.begin) // stored.itemsize, dtype=stored)
            self._fill(info, span, stored)
            return span.as_strided(info.shape, info.strides).to(device, wanted).contiguous()
        result = torch.empty(info.shape, dtype=wanted, device=device)
        self._fill(info, result.view(-1), stored)
        return result

    def _fill(self, info: TensorInfo, flat: Tensor, stored: torch.dtype) -> None:
        """Read a tensor's bytes, piece by piece, into ``flat``."""
        import torch

        piece = memoryview(bytearray(min(PIECE_BYTES, info.end - info.begin)))
        self.file.seek(self.data_start + info.begin)
        for start in range(0, info.end - info.begin, PIECE_BYTES):
            part = piece[: min(PIECE_BYTES, info.end - info.begin - start)]
            self._read_fully(part)
            first = start // stored.itemsize
            flat[first : first + len(part) // stored.itemsize].copy_(torch.frombuffer(part, dtype=stored))

    def _read_fully(self, part: memoryview) -> None:
        filled = 0
        while filled < len(part):
            count = self.file.readinto(part[filled:])  # type: ignore[attr-defined]
            if not count:
                raise CheckpointError(f"{self.path.name} ended while it was read; it was changed meanwhile.")
            filled += count
