"""Hypernetwork files -> what attention takes its keys and values from.

A kind of networks that a prompt names with ``<hypernet:name:multiplier>``.  The model is never touched: the networks
enter each UNet call through an opening.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webui.checkpoints.formats import Formats
from webui.checkpoints.library import FOLDERS
from webui.conditioning import Contribution, Pictures
from webui.conditioning.extra_networks import ExtraNetworkKind, NetworkUse
from webui.errors import CheckpointError
from webui.hooks import hookimpl
from webui.option_boxes import option

if TYPE_CHECKING:
    from webui.model import Model
    from webui.networks.hypernetwork import Hypernetwork
    from webui.request import GenerationRequest

KIND = "hypernet"


@dataclass(frozen=True)
class Options:
    """What a hypernetwork's tag says of it."""

    multiplier: float = option(1.0, "Multiplier")


class Hypernetworks:
    """The kind of ``<hypernet:name:multiplier>``."""

    name = KIND
    title = "hypernetwork"
    folders: Sequence[str] = FOLDERS[KIND]
    options: type = Options

    def read(self, arguments: Sequence[str]) -> tuple[str, Mapping[str, Any]] | None:
        """The name and the multiplier, as AUTOMATIC1111 reads them: what is named or stands behind is ignored."""
        name, *places = [item for item in arguments if item.count("=") != 1] or [""]
        try:
            multiplier = float(places[0]) if places else 1.0
        except ValueError:
            return None
        return (name, {"multiplier": multiplier}) if name and math.isfinite(multiplier) else None

    def prepare(
        self, uses: Sequence[NetworkUse], model: Model, request: GenerationRequest, pictures: Pictures
    ) -> Contribution:
        """All files at once, each of which changes what those before it left.

        Raises CheckpointError for a file that changes nothing in this model, and for one that cannot be read.
        """
        from webui.networks.hypernetwork import source_widths
        from webui.networks.unet import Openings

        widths = source_widths(model.unet)
        read = {use.path: _read(use, model, pictures.formats) for use in uses}
        for use in uses:
            _check_widths(use, read[use.path], widths, model)
        unused = {use.name: read[use.path].chains.keys() - widths for use in uses}
        problems = (
            f'Of the hypernetwork "{name}", the networks for {_listed(left)} numbers have no place in this model.'
            for name, left in unused.items()
            if left
        )
        changes = tuple(read[use.path].times(use.options.multiplier) for use in uses)
        return Contribution(Openings(source_changes=changes), problems=tuple(problems))


@hookimpl
def register_extra_network_kinds() -> Sequence[ExtraNetworkKind]:
    """The kind of hypernetworks."""
    return [Hypernetworks()]


def _check_widths(use: NetworkUse, network: Hypernetwork, widths: set[int], model: Model) -> None:
    if not widths & network.chains.keys():
        raise CheckpointError(
            f'The hypernetwork "{use.name}" changes nothing in the model {model.name}: it is for attention over '
            f"{_listed(network.chains)} numbers, the model's is over {_listed(widths)}. "
            "Choose one that was made for this kind of model, or take its tag out of the prompt."
        )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _read(use: NetworkUse, model: Model, formats: Formats) -> Hypernetwork:
    from webui.networks import hypernetwork

    assert use.path is not None, "the kind has folders"
    file = formats.open(use.path)
    try:
        return hypernetwork.of(file.load("", model.compute.dtype, model.compute.device), file.header.metadata)
    except CheckpointError as error:
        raise CheckpointError(f"{use.path.name} is no hypernetwork that can be used: {error}") from error
