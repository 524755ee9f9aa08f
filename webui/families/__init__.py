"""Recognise a checkpoint by its keys and shapes, build its Model.  A drop-in folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from webui.checkpoints.formats import Header, SafetensorsFile
    from webui.device import Compute
    from webui.model import Model

__all__ = ["Mapping", "ModelFamily"]


class ModelFamily(Protocol):
    """A kind of model.  ``native_size`` is the side in pixels that the family was trained at, used as the default."""

    name: str

    def detect(self, header: Header) -> bool:
        """Whether a file with this header (names, shapes, metadata; no tensor data) is of this family."""
        ...

    def native_size(self, header: Header) -> int:
        """The picture side in pixels that this file was trained at."""
        ...

    def build(self, file: SafetensorsFile, compute: Compute) -> Model:
        """The loaded model, its weights in ``compute``'s dtype on its device.  Raises CheckpointError."""
        ...
