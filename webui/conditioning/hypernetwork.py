"""Hypernetwork files -> what attention takes its keys and values from.

Called by the engine once a job for the files that the prompt's ``<hypernet:name:multiplier>`` name.  The model is never
touched: the networks enter each UNet call through an opening.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from webui.checkpoints.formats import BUILT_IN, Formats
from webui.conditioning import Contribution
from webui.errors import CheckpointError

if TYPE_CHECKING:
    from webui.model import Model
    from webui.networks.hypernetwork import Hypernetwork


@dataclass(frozen=True)
class HypernetUse:
    """A file and how strongly it acts; ``name`` is what the prompt calls it."""

    name: str
    path: Path
    sha256: str
    multiplier: float


def contribution(
    uses: Sequence[HypernetUse], model: Model, formats: Formats = BUILT_IN
) -> tuple[Contribution, tuple[str, ...]]:
    """All files at once, in their order, and sentences about networks in them that this model has no use for.

    Each changes what those before it left.  Raises CheckpointError for a file that changes nothing in this model, and
    for one that cannot be read.
    """
    from webui.networks.hypernetwork import source_widths
    from webui.networks.unet import Openings

    widths = source_widths(model.unet)
    read = {use.path: _read(use, model, formats) for use in uses}
    for use in uses:
        if not widths & read[use.path].chains.keys():
            raise CheckpointError(
                f'The hypernetwork "{use.name}" changes nothing in the model {model.name}: it is for attention over '
                f"{_listed(read[use.path].chains)} numbers, the model's is over {_listed(widths)}. "
                "Choose one that was made for this kind of model, or take its tag out of the prompt."
            )
    unused = {use.name: read[use.path].chains.keys() - widths for use in uses}
    problems = (
        f'Of the hypernetwork "{name}", the networks for {_listed(left)} numbers have no place in this model.'
        for name, left in unused.items()
        if left
    )
    changes = tuple(read[use.path].times(use.multiplier) for use in uses)
    return Contribution(Openings(source_changes=changes)), tuple(problems)


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _read(use: HypernetUse, model: Model, formats: Formats) -> Hypernetwork:
    from webui.networks import hypernetwork

    file = formats.open(use.path)
    try:
        return hypernetwork.of(file.load("", model.compute.dtype, model.compute.device), file.header.metadata)
    except CheckpointError as error:
        raise CheckpointError(f"{use.path.name} is no hypernetwork that can be used: {error}") from error
