"""Classifier-free guidance: the network, asked with and without the prompt, as the denoiser that samplers walk.

The pipeline builds one :class:`GuidedDenoiser` per picture or batch.  It knows nothing of UNets: it hands each
:class:`NetworkCall` to a function, and that function fills the network's openings (control residuals, extra context,
weight deltas) from the contributions active at the call's noise level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

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
    """

    predict: Predict
    prediction: Prediction
    table: NoiseTable
    cond: Tensor
    uncond: Tensor
    cfg_scale: float
    dtype: torch.dtype = torch.float32
    mix: Combine = combine

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The guided clean latent seen in ``x`` (B, C, h, w), whose noise has deviation ``sigma``."""
        if self.cfg_scale == 1.0:
            return self._ask(x, sigma, [(self.cond, True)])[0]
        sides = [(self.cond, True), (self.uncond, False)]
        if self.cond.shape[1] == self.uncond.shape[1]:
            cond, uncond = self._ask(x, sigma, sides)
        else:
            cond, uncond = (self._ask(x, sigma, [side])[0] for side in sides)
        return self.mix(cond, uncond, self.cfg_scale)

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
