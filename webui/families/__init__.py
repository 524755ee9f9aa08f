"""Recognise a checkpoint by its keys and shapes, build its Model.  A drop-in folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from webui.errors import CheckpointError

if TYPE_CHECKING:
    from webui.checkpoints.formats import Header, SafetensorsFile
    from webui.device import Compute
    from webui.model import Model


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


def find_family(header: Header, families: Mapping[str, ModelFamily]) -> ModelFamily | None:
    """The first family that recognises a file with this header, or None."""
    return next((family for family in families.values() if family.detect(header)), None)


def load(file: SafetensorsFile, families: Mapping[str, ModelFamily], compute: Compute) -> Model:
    """The model that the first family to recognise the file builds.  Raises CheckpointError when none does."""
    family = find_family(file.header, families)
    if family is not None:
        return family.build(file, compute)
    raise CheckpointError(
        f"{file.path.name} is no checkpoint of a known family ({', '.join(families)}); "
        "a LoRA, VAE or ControlNet file belongs into its own folder."
    )
