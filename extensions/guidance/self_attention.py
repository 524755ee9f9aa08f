"""Self-attention guidance (SAG): away from what the network sees when the places it looks at are blurred.

Hong et al. 2022 (arXiv:2210.00939), algorithm 1.  The clean latent seen without the prompt is blurred where the middle
block's self-attention gathers, noised again with the same noise, and asked about once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webui.conditioning import Contribution, Pictures
from webui.errors import RequestError
from webui.option_boxes import option
from webui.request import GenerationRequest

from .span import check_span, noise_levels

if TYPE_CHECKING:
    from torch import Tensor

    from webui.diffusion.guidance import Guiding, NetworkCall
    from webui.model import Model
    from webui.networks.unet import Attend, Attending, Openings

SITE = "middle_block.1.transformer_blocks.0.attn1"
"""The attention that is looked at."""
KERNEL = 9
"""Places of the latent that the blur reaches over, as in the authors' code."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """``scale`` is s of the paper, 0 for none; ``blur_sigma`` the blur's deviation in places of the latent.

    ``threshold`` is psi: places that together are looked at more than so often are blurred; 1 is the average.
    """

    scale: float = option(0.5, "Scale", low=-2, high=5, step=0.05, hint="One more call of the network each step.")
    blur_sigma: float = option(2.0, "Blur sigma", low=0, high=10, step=0.1)
    threshold: float = option(1.0, "Threshold", low=0, high=4, step=0.05, beside=True)
    start: float = option(0.0, "Start", low=0, high=1, step=0.01)
    end: float = option(1.0, "End", low=0, high=1, step=0.01, beside=True)

    def __post_init__(self) -> None:
        check_span(SelfAttention.name, self.start, self.end)


def attention_received(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """How much each place is looked at, (B, N), from (B, N, heads * d) each; 1 on average.

    softmax(QK^T / sqrt(d)), its mean over the heads, summed over the places that look.  Keys beyond the N of the
    picture's own places, which are a reference picture's, are left out.
    """
    key = key[:, : query.shape[1]]
    q, k = (tokens.float().view(*tokens.shape[:2], heads, -1).transpose(1, 2) for tokens in (query, key))
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
    received: Tensor = weights.mean(dim=1).sum(dim=1)
    return received


def gaussian_blurred(latent: Tensor, sigma: float) -> Tensor:
    """A latent (B, C, h, w) blurred with a Gaussian of ``KERNEL`` x ``KERNEL`` places, mirrored at the edges."""
    import torch
    import torch.nn.functional as F

    reach = KERNEL // 2
    line = torch.arange(-reach, reach + 1, device=latent.device, dtype=latent.dtype)
    line = (-0.5 * (line / sigma) ** 2).softmax(dim=0)
    channels = latent.shape[1]
    mirrored = F.pad(latent, (reach,) * 4, mode="reflect")
    down = F.conv2d(mirrored, line.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(down, line.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


@dataclass
class Watch:
    """How much each place was looked at in the last call about the negative prompt: (B, 1, h, w) of the middle block.

    One for each job.  ``seen`` is None when the call did not ask without the prompt.
    """

    seen: Tensor | None = None

    def openings(self, call: NetworkCall) -> Openings:
        """A look at the attention of a plain call; what guides ask is left alone.  It changes no bit."""
        from webui.diffusion.guidance import NO_OPENINGS
        from webui.networks.unet import Openings

        rows = [row for row, conditional in enumerate(call.conditional) if not conditional]
        if call.openings is not NO_OPENINGS or not rows:
            return Openings()

        def look(attending: Attending, attend: Attend) -> Tensor:
            if attending.site == SITE:
                received = attention_received(attending.query[rows], attending.key[rows], attending.heads)
                self.seen = received.view(len(rows), 1, *attending.size)
            return attend(attending)

        return Openings(attention_wraps=(look,))

    def taken(self) -> Tensor | None:
        """What was seen since it was last asked."""
        seen, self.seen = self.seen, None
        return seen


def degraded(clean: Tensor, received: Tensor, sigma: float, threshold: float) -> Tensor:
    """A clean latent (B, C, h, w), blurred where ``received`` (B, 1, h', w') is above ``threshold``."""
    import torch.nn.functional as F

    mask = F.interpolate((received > threshold).to(clean), clean.shape[2:], mode="nearest")
    return (1 - mask) * clean + mask * gaussian_blurred(clean, sigma)


def self_attention_guidance(guiding: Guiding, options: Options, received: Tensor) -> Tensor:
    """guided + scale * (eps(x) - eps(degraded x)) as clean latents.

    The noise seen in ``x`` is laid over the degraded latent, so that the difference of the two answers about noise is
    (answer - degraded) / sigma, and that of clean latents is -sigma times as much.
    """
    from webui.networks.unet import Openings

    worse = degraded(guiding.uncond, received, options.blur_sigma, options.threshold)
    answer = guiding.ask(worse + (guiding.x - guiding.uncond), guiding.sigma, False, Openings())
    return guiding.guided + options.scale * (worse - answer)


class SelfAttention:
    """The conditioning module."""

    name = "Self-attention guidance"
    order = 230
    options: type = Options

    def prepare(self, options: Options, model: Model, request: GenerationRequest, pictures: Pictures) -> Contribution:
        """A guide and a look at the middle block; nothing at all for a scale or a blur of 0.

        Calls that leave the negative prompt out (NGMS, skip early CFG) stay as they are.  Raises RequestError for a
        model without the attention.
        """
        from webui.networks.unet import Openings

        if options.scale == 0 or options.blur_sigma == 0:
            return Contribution(Openings())
        if not model.unet.config.middle_depth:
            raise RequestError(f"The model {model.name} has no attention in its middle block, which SAG looks at.")
        watch = Watch()

        def guide(guiding: Guiding) -> Tensor:
            received = watch.taken()
            return guiding.guided if received is None else self_attention_guidance(guiding, options, received)

        return Contribution(watch.openings, noise_levels(options.start, options.end, model.noise_table), guide)
