"""CFG rescale: high guidance without the glaring contrast that it brings.

Lin et al. 2023 (arXiv:2305.08891), section 3.4: the guided answer gets back the deviation of the prompt's own.  The
program has the same by itself, for classifier-free guidance alone; as a module it also rescales what the modules before
it made, perturbed-attention guidance above all, and may hold for a part of the sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webui.conditioning import Contribution, Pictures
from webui.option_boxes import option
from webui.request import GenerationRequest

from .span import check_span, noise_levels

if TYPE_CHECKING:
    from torch import Tensor

    from webui.diffusion.guidance import Guiding
    from webui.model import Model


@dataclass(frozen=True, kw_only=True)
class Options:
    """``multiplier`` is phi of the paper: 0 leaves the guided answer alone, 1 gives it the prompt's deviation."""

    multiplier: float = option(0.7, "Multiplier", low=0, high=1, step=0.05)
    start: float = option(0.0, "Start", low=0, high=1, step=0.01)
    end: float = option(1.0, "End", low=0, high=1, step=0.01, beside=True)

    def __post_init__(self) -> None:
        check_span(Rescale.name, self.start, self.end)


def rescaling(guiding: Guiding, multiplier: float) -> Tensor:
    """The guided clean latent, rescaled as an answer of the network: equations 14 to 16 of the paper."""
    from webui.diffusion.guidance import rescaled
    from webui.diffusion.prediction import denoised, network_output

    if guiding.sigma <= 0:
        return guiding.guided
    guided, cond = (
        network_output(guiding.prediction, guiding.x, guiding.sigma, clean) for clean in (guiding.guided, guiding.cond)
    )
    return denoised(guiding.prediction, guiding.x, guiding.sigma, rescaled(guided, cond, multiplier))


class Rescale:
    """The conditioning module."""

    name = "Guidance rescale"
    order = 250
    options: type = Options

    def prepare(self, options: Options, model: Model, request: GenerationRequest, pictures: Pictures) -> Contribution:
        """A guide; nothing at all for a multiplier of 0."""
        from webui.networks.unet import Openings

        if options.multiplier == 0:
            return Contribution(Openings())
        levels = noise_levels(options.start, options.end, model.noise_table)
        return Contribution(Openings(), levels, lambda guiding: rescaling(guiding, options.multiplier))
