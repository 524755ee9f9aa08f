"""prompt and pictures -> what the UNet reads.  A drop-in folder: a module fills typed openings, it never patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from webui.model import Model
    from webui.networks.unet import Openings
    from webui.request import GenerationRequest


@dataclass(frozen=True)
class Contribution:
    """What a module adds to the UNet calls whose noise level lies in ``sigma_range`` (low, high), both included."""

    openings: Openings
    sigma_range: tuple[float, float] = (0.0, float("inf"))


class ConditioningModule(Protocol):
    """A conditioning module as it is registered.  ``options`` is its frozen options record (a dataclass)."""

    name: str
    options: type

    def prepare(
        self, options: Any, model: Model, request: GenerationRequest, picture: Mapping[str, Any]
    ) -> Contribution:
        """The contribution for one job.  Pure: the model is bit-identical before and after."""
        ...
