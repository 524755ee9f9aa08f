"""Perturbed-attention guidance (PAG): away from what the network sees when it cannot relate places to one another.

Ahn et al. 2024 (arXiv:2403.17377).  The network is asked once more with the prompt, its self-attention in the middle
block replaced by the identity, so that each place keeps its own value: structure is lost, appearance stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webui.conditioning import Contribution, Pictures
from webui.errors import RequestError
from webui.option_boxes import option
from webui.prompt.compose import parts
from webui.request import GenerationRequest

from .span import check_span, noise_levels

if TYPE_CHECKING:
    from torch import Tensor

    from webui.diffusion.guidance import Guiding
    from webui.model import Model
    from webui.networks.unet import Attend, Attending


@dataclass(frozen=True, kw_only=True)
class Options:
    """``scale`` is s of the paper, 0 for none."""

    scale: float = option(3.0, "Scale", low=0, high=30, step=0.1, hint="One more call of the network each step.")
    start: float = option(0.0, "Start", low=0, high=1, step=0.01)
    end: float = option(1.0, "End", low=0, high=1, step=0.01, beside=True)

    def __post_init__(self) -> None:
        check_span(PerturbedAttention.name, self.start, self.end)


def perturbed(attending: Attending, attend: Attend) -> Tensor:
    """Attention with the identity in place of softmax(QK^T) in the middle block's self-attention.

    A reference picture's places stand behind the picture's own, and are left out.
    """
    if attending.is_cross or not attending.site.startswith("middle_block."):
        return attend(attending)
    return attending.value[:, : attending.query.shape[1]]


def perturbed_attention_guidance(guiding: Guiding, scale: float, *, alone: bool) -> Tensor:
    """guided + scale * (cond - perturbed cond): the paper's eps + s * (eps - perturbed eps), for clean latents.

    Where the prompt is not ``alone`` (AND, a weight), ``cond`` is no answer of the network; its first prompt is asked
    for without the perturbation, too.
    """
    from webui.networks.unet import Openings

    cond = guiding.cond if alone else guiding.ask(guiding.x, guiding.sigma, True, Openings())
    worse = guiding.ask(guiding.x, guiding.sigma, True, Openings(attention_wraps=(perturbed,)))
    return guiding.guided + scale * (cond - worse)


class PerturbedAttention:
    """The conditioning module."""

    name = "Perturbed-attention guidance"
    order = 220
    options: type = Options

    def prepare(self, options: Options, model: Model, request: GenerationRequest, pictures: Pictures) -> Contribution:
        """A guide; nothing at all for a scale of 0.  Raises RequestError for a model without the attention."""
        from webui.networks.unet import Openings

        if options.scale == 0:
            return Contribution(Openings())
        if not model.unet.config.middle_depth:
            raise RequestError(f"The model {model.name} has no attention in its middle block, which PAG perturbs.")
        prompts = parts(request.prompt)
        alone = len(prompts) == 1 and prompts[0].weight == 1.0
        return Contribution(
            Openings(),
            noise_levels(options.start, options.end, model.noise_table),
            lambda guiding: perturbed_attention_guidance(guiding, options.scale, alone=alone),
        )
