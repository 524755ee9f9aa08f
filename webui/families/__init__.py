"""Recognise a checkpoint by its keys and shapes, build its Model.  A drop-in folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from webui.checkpoints import keys
from webui.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from webui.checkpoints.formats import WeightsFile
    from webui.checkpoints.loaders import Header
    from webui.device import Compute
    from webui.model import Model

Network = TypeVar("Network", bound="nn.Module")


class ModelFamily(Protocol):
    """A kind of model.  ``native_size`` is the side in pixels that the family was trained at, used as the default."""

    name: str

    def detect(self, header: Header) -> bool:
        """Whether a file with this header (names, shapes, metadata; no tensor data) is of this family."""
        ...

    def native_size(self, header: Header) -> int:
        """The picture side in pixels that this file was trained at."""
        ...

    def build(self, file: WeightsFile, compute: Compute) -> Model:
        """The loaded model, its weights in ``compute``'s dtype on its device.  Raises CheckpointError."""
        ...


def find_family(header: Header, families: Mapping[str, ModelFamily]) -> ModelFamily | None:
    """The first family that recognises a file with this header, or None."""
    return next((family for family in families.values() if family.detect(header)), None)


def load(file: WeightsFile, families: Mapping[str, ModelFamily], compute: Compute) -> Model:
    """The model that the first family to recognise the file builds.  Raises CheckpointError when none does."""
    family = find_family(file.header, families)
    if family is not None:
        return family.build(file, compute)
    raise CheckpointError(
        f"{file.path.name} is no checkpoint of a known family ({', '.join(families)}); "
        "a LoRA, VAE or ControlNet file belongs into its own folder."
    )


def fill(
    network: Network,
    file: WeightsFile,
    names: Mapping[str, str],
    shapes: keys.Shapes,
    dtype: torch.dtype,
    compute: Compute,
) -> Network:
    """The network, built on the meta device, with the file's tensors as its parameters, for inference.

    ``names`` are the file's names and ``shapes`` the shapes by the network's own ones; a stored shape may lack what
    follows in ones.  Raises CheckpointError with a report of the names that do not fit.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    keys.require(keys.compare(shapes, wanted), file.path.name)
    stored = {names[name]: name for name in wanted}
    _require_floats(file, stored)
    loaded = file.load("", dtype, compute.device, lambda name: name in stored)
    tensors = {stored[name]: tensor.view(wanted[stored[name]]) for name, tensor in loaded.items()}
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def _require_floats(file: WeightsFile, names: Mapping[str, object]) -> None:
    """Raise CheckpointError when a weight is stored as whole numbers (a quantised file of some other program)."""
    for name, info in file.header.tensors.items():
        if name in names and "F" not in info.dtype:
            raise CheckpointError(
                f"{file.path.name} stores the weight {name} as {info.dtype}; weights must be floating-point numbers."
            )
