"""Classifier-free guidance: the network, asked with and without the prompt, as the denoiser that samplers walk.

The pipeline builds one :class:`GuidedDenoiser` per picture or batch.  It knows nothing of UNets: it hands each
:class:`NetworkCall` to a function, and that function fills the network's openings (control residuals, extra context,
weight deltas) from the contributions active at the call's noise level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from webui.diffusion.prediction import Prediction, c_in, denoised
from webui.diffusion.schedules import NoiseTable


@dataclass(frozen=True, kw_only=True)
class NetworkCall:
    """One question to the network, with all that a conditioning module may want to know about it.

    ``x`` (B, C, h, w) is scaled to unit variance and in the network's dtype; ``timestep`` is in [0, 999] and may lie
    between two trained ones; ``sigma`` is the same noise level as a sigma; ``context`` is (B, tokens, width).
    Row j shows picture ``image[j]`` of the batch; ``conditional[j]`` tells whether its context is the prompt's (True)
    or the negative prompt's (False).
    """

    x: Tensor
    timestep: float
    sigma: float
    context: Tensor
    image: tuple[int, ...]
    conditional: tuple[bool, ...]


class Predict(Protocol):
    """The network as a function of a call: its raw output, shaped like ``call.x`` (B, C, h, w)."""

    def __call__(self, call: NetworkCall) -> Tensor:
        """The raw output."""
        ...


class Pull(NamedTuple):
    """One of several prompts: its context (B or 1, tokens, width), and how strongly it pulls (1: as if alone)."""

    context: Tensor
    weight: float


MAX_SIDES = 2
"""Contexts that go through the network in one batch."""

Combine = Callable[[Tensor, Tensor, float], Tensor]


def combine(cond: Tensor, uncond: Tensor, cfg_scale: float) -> Tensor:
    """uncond + cfg_scale * (cond - uncond): classifier-free guidance (arXiv:2207.12598, equation 6)."""
    return uncond + (cond - uncond) * cfg_scale


@dataclass(frozen=True, kw_only=True)
class GuidedDenoiser:
    """A ``Denoise``: the clean latent in the dtype of ``x``, guided from ``uncond`` towards ``cond``.

    ``cond`` and ``uncond`` are (B, tokens, width) or (1, tokens, width) for all pictures.  With equally many tokens
    both go in one batch, first every picture's cond, then every picture's uncond; else in two calls, cond first.  A
    ``cfg_scale`` of 1 asks with ``cond`` alone.  The network computes in ``dtype``; all else stays in the dtype of
    ``x``.  ``mix`` is how the two answers become one.

    Instead of one context ``cond`` may be several with weights, which together stand for the answer
    uncond + sum of weight * (cond - uncond) (arXiv:2206.01714, equation 11).
    """

    predict: Predict
    prediction: Prediction
    table: NoiseTable
    cond: Tensor | Sequence[Pull]
    uncond: Tensor
    cfg_scale: float
    dtype: torch.dtype = torch.float32
    mix: Combine = combine

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The guided clean latent seen in ``x`` (B, C, h, w), whose noise has deviation ``sigma``."""
        pulls = self._pulls
        if self.cfg_scale == 1.0 and len(pulls) == 1 and pulls[0].weight == 1.0:
            return self._ask(x, sigma, [(pulls[0].context, True)])[0]
        return self.guided_and_unguided(x, sigma)[0]

    def guided_and_unguided(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The guided clean latent and the one seen with ``uncond`` alone (B, C, h, w); both sides are always asked."""
        pulls = self._pulls
        batches = _batches([*((pull.context, True) for pull in pulls), (self.uncond, False)])
        *conds, uncond = (answer for batch in batches for answer in self._ask(x, sigma, batch))
        is_plain = len(pulls) == 1 and pulls[0].weight == 1.0
        cond = conds[0] if is_plain else _together(conds, uncond, [pull.weight for pull in pulls])
        return self.mix(cond, uncond, self.cfg_scale), uncond

    @property
    def _pulls(self) -> Sequence[Pull]:
        return [Pull(self.cond, 1.0)] if isinstance(self.cond, Tensor) else self.cond

    def _ask(self, x: Tensor, sigma: float, sides: Sequence[tuple[Tensor, bool]]) -> tuple[Tensor, ...]:
        """One network call for all ``sides`` (context, whether conditional): the clean latent of each (B, C, h, w)."""
        count = x.shape[0]
        call = NetworkCall(
            x=(x * c_in(sigma)).to(self.dtype).repeat(len(sides), 1, 1, 1),
            timestep=self.table.timestep(sigma),
            sigma=sigma,
            context=torch.cat([context.to(self.dtype).expand(count, -1, -1) for context, _ in sides]),
            image=tuple(range(count)) * len(sides),
            conditional=tuple(conditional for _, conditional in sides for _ in range(count)),
        )
        outputs = self.predict(call).chunk(len(sides))
        return tuple(denoised(self.prediction, x, sigma, output) for output in outputs)


def _batches(sides: Sequence[tuple[Tensor, bool]]) -> list[list[tuple[Tensor, bool]]]:
    """The sides in their order, in batches of equally many tokens."""
    batches: list[list[tuple[Tensor, bool]]] = []
    for side in sides:
        last = batches[-1] if batches else []
        if last and len(last) < MAX_SIDES and last[0][0].shape[1] == side[0].shape[1]:
            last.append(side)
        else:
            batches.append([side])
    return batches


def _together(conds: Sequence[Tensor], uncond: Tensor, weights: Sequence[float]) -> Tensor:
    """uncond + sum of weight * (cond - uncond)."""
    together = uncond
    for cond, weight in zip(conds, weights, strict=True):
        together = together + (cond - uncond) * weight
    return together
