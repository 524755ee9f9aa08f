"""texts and their shares -> what enters the calls of the network.

Attention: at each place cross-attention gathers from every text, each by its share (the method of furusu's attention
couple and hako-mikan's Regional Prompter).  Latent: the network is asked for each text, and the clean latents are mixed
by their shares (opparco's latent couple); exact at the edges, and one more call for each text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from webui.conditioning.text import Timed
    from webui.diffusion.guidance import Guiding, NetworkCall
    from webui.networks.unet import Attend, Attending, Openings

    Couple = Callable[["Side", Attending, Attend], Tensor]


@dataclass(frozen=True)
class Side:
    """The texts of the prompt, or of the negative prompt.

    ``shares`` (texts, h, w) over the latent say how much each counts at a place; they add up to 1.
    """

    texts: tuple[Timed, ...]
    shares: Tensor

    def shares_at(self, size: tuple[int, int]) -> Tensor:
        """(texts, h * w) where the latent has another size: the mean of what a place covers."""
        import torch.nn.functional as F

        return F.adaptive_avg_pool2d(self.shares, size).flatten(1)

    def contexts(self, number: int) -> list[Tensor]:
        """What each text is at a call."""
        return [text.at(number) for text in self.texts]


def reading(attending: Attending, context: Tensor, tokens: int) -> Attending:
    """The attention with another ``context`` (1, T, D) in place of the call's own ``tokens``.

    Tokens behind those, which other modules added, stay, and so do their biases.
    """
    import torch

    rows = len(attending.key)
    read = attending.read(context.to(attending.query))
    key, value = (
        torch.cat([mine.expand(rows, -1, -1), old[:, tokens:]], dim=1)
        for mine, old in zip(read, (attending.key, attending.value), strict=True)
    )
    bias = attending.bias
    if bias is not None:
        bias = torch.cat([bias.new_zeros(*bias.shape[:-1], context.shape[1]), bias[..., tokens:]], dim=-1)
    return replace(attending, key=key, value=value, bias=bias)


def gathered(side: Side, attending: Attending, attend: Attend, call: NetworkCall) -> Tensor:
    """What every place gathers from all texts of a side, each by its share there."""
    tokens = call.context.shape[1]
    shares = side.shares_at(attending.size).to(attending.query)
    parts = [
        attend(reading(attending, context, tokens)) * share[None, :, None]
        for context, share in zip(side.contexts(call.number), shares, strict=True)
    ]
    total: Tensor = sum(parts[1:], start=parts[0])
    return total


@dataclass(frozen=True)
class Chosen:
    """Marks a question of the latent mode: which text it is about.  As a wrap it changes nothing."""

    text: int

    def __call__(self, attending: Attending, attend: Attend) -> Tensor:
        """Attention as it is."""
        return attend(attending)


@dataclass(frozen=True)
class Coupling:
    """The texts of both sides; without a ``negative`` one the negative prompt holds everywhere."""

    positive: Side
    negative: Side | None = None

    def attention(self, call: NetworkCall) -> Openings:
        """All texts at once, in cross-attention."""
        return self._openings(call, lambda side, attending, attend: gathered(side, attending, attend, call))

    def latent(self, call: NetworkCall) -> Openings:
        """The text that is asked about, everywhere: the first one where no guide asks for another."""
        marks = [wrap.text for wrap in call.openings.attention_wraps if isinstance(wrap, Chosen)]
        text, tokens = (marks or [0])[-1], call.context.shape[1]

        def alone(side: Side, attending: Attending, attend: Attend) -> Tensor:
            return attend(reading(attending, side.texts[text].at(call.number), tokens))

        return self._openings(call, alone)

    def _openings(self, call: NetworkCall, couple: Couple) -> Openings:
        import torch

        from webui.networks.unet import Openings

        has_both = len(set(call.conditional)) > 1

        def wrap(attending: Attending, attend: Attend) -> Tensor:
            if not attending.is_cross:
                return attend(attending)
            sides = {True: self.positive, False: self.negative}
            found = {
                conditional: attend(attending)
                if (one := sides[conditional]) is None
                else couple(one, attending, attend)
                for conditional in set(call.conditional)
            }
            if not has_both:
                return found[call.conditional[0]]
            rows = torch.tensor(call.conditional, device=attending.query.device)[:, None, None]
            return torch.where(rows, found[True], found[False])

        return Openings(attention_wraps=(wrap,))

    def mixed(self, guiding: Guiding) -> Tensor:
        """The guided clean latent of all texts, from that of the first ones: latent mode's guide."""
        import torch

        cond = self._answers(self.positive, guiding, guiding.cond, conditional=True)
        if torch.equal(guiding.cond, guiding.uncond):  # the negative prompt was left out
            return guiding.guided + (cond - guiding.cond)
        uncond = guiding.uncond
        if self.negative is not None:
            uncond = self._answers(self.negative, guiding, uncond, conditional=False)
        scale = guiding.cfg_scale
        return guiding.guided + scale * (cond - guiding.cond) + (1 - scale) * (uncond - guiding.uncond)

    def _answers(self, side: Side, guiding: Guiding, first: Tensor, *, conditional: bool) -> Tensor:
        """The clean latents of a side's texts, mixed; ``first`` is that of the first one."""
        from webui.networks.unet import Openings

        total = first * side.shares[0].to(first)
        for text, share in enumerate(side.shares[1:], start=1):
            openings = Openings(attention_wraps=(Chosen(text),))
            total = total + guiding.ask(guiding.x, guiding.sigma, conditional, openings) * share.to(first)
        return total
