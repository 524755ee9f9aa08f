"""prompt and pictures -> what the UNet reads.  A drop-in folder: a module fills typed openings, it never patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from webui.diffusion.guidance import Guide, NetworkCall
    from webui.model import Model
    from webui.networks.unet import Openings
    from webui.request import GenerationRequest
    from webui.result import Pixels


@dataclass(frozen=True)
class Contribution:
    """What a module adds to the UNet calls whose noise level lies in ``sigma_range`` (low, high), both included.

    ``openings`` are the same in every such call, or a function of the call, asked once for each: a ControlNet answers
    what is in ``call.x``, and ``call.conditional`` tells which rows have the prompt.  ``guide`` changes the clean
    latent that is made of the answers with and without the prompt.
    """

    openings: Openings | Callable[[NetworkCall], Openings]
    sigma_range: tuple[float, float] = (0.0, float("inf"))
    guide: Guide | None = None

    def holds(self, sigma: float) -> bool:
        """Whether it has a say at this noise level."""
        low, high = self.sigma_range
        return low <= sigma <= high

    def openings_for(self, call: NetworkCall) -> Openings:
        """What it fills in this call."""
        return self.openings(call) if callable(self.openings) else self.openings


@dataclass(frozen=True)
class Pictures:
    """The pictures a module may ask for, each (H, W, 3) uint8.

    ``load(sha256)`` reads a stored input picture; ``preprocess(name, pixels, options)`` is the control picture that the
    registered preprocessor of that name makes.  Both raise an error for people when there is none.
    """

    load: Callable[[str], Pixels]
    preprocess: Callable[[str, Pixels, Mapping[str, Any]], Pixels]


class ConditioningModule(Protocol):
    """A conditioning module as it is registered.  ``options`` is its frozen options record (a dataclass)."""

    name: str
    options: type

    def prepare(self, options: Any, model: Model, request: GenerationRequest, pictures: Pictures) -> Contribution:
        """The contribution for one job.  Pure: the model is bit-identical before and after."""
        ...
