"""Classifier-free guidance: the network, asked with and without the prompt, as the denoiser that samplers walk.

The pipeline builds one :class:`GuidedDenoiser` per picture or batch.  It computes nothing of a UNet: it hands each
:class:`NetworkCall` to a function, and that function fills the network's openings (control residuals, extra context,
weight deltas) from the contributions active at the call's noise level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from webui.diffusion.prediction import Prediction, c_in, denoised, network_output
from webui.diffusion.schedules import NoiseTable
from webui.networks.unet import Openings
from webui.request import Guidance

NO_OPENINGS = Openings()


@dataclass(frozen=True, kw_only=True)
class NetworkCall:
    """One question to the network, with all that a conditioning module may want to know about it.

    ``x`` (B, C, h, w) is scaled to unit variance and in the network's dtype; ``timestep`` is in [0, 999] and may lie
    between two trained ones; ``sigma`` is the same noise level as a sigma; ``context`` is (B, tokens, width).
    Row j shows picture ``image[j]`` of the batch; ``conditional[j]`` tells whether its context is the prompt's (True)
    or the negative prompt's (False).  ``openings`` are what this call alone adds; a :data:`Guide` asks with them.
    ``number`` counts the denoiser's calls of the walk from 0; what is asked in one of them shares it.
    ``steps_done`` of ``steps`` are over in AUTOMATIC1111's count, which hears of a step after its first call
    (``modules/sd_samplers_common.py``, callback_state): the share by which its extensions begin and end.
    """

    x: Tensor
    timestep: float
    sigma: float
    context: Tensor
    image: tuple[int, ...]
    conditional: tuple[bool, ...]
    openings: Openings = NO_OPENINGS
    number: int = 0
    steps_done: int = 0
    steps: int = 1


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

PLAIN = Guidance()

Combine = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True, kw_only=True)
class Guiding:
    """What is known when the answers of one call become one clean latent; all latents are (B, C, h, w).

    ``x`` is the noisy latent whose noise has deviation ``sigma``; ``cond`` and ``uncond`` are the clean latents seen in
    it with and without the prompt, and ``guided`` is what has been made of them so far; where the prompt alone was
    asked (a scale of 1, NGMS, skip early), ``uncond`` is ``cond``.  ``call`` counts the calls of
    the walk from 0, of ``calls`` that are expected.  ``ask(x, sigma, conditional, openings)`` asks the network once
    more, with the prompt's context or the negative prompt's and with openings of its own: a clean latent.
    """

    x: Tensor
    sigma: float
    cond: Tensor
    uncond: Tensor
    guided: Tensor
    cfg_scale: float
    call: int
    calls: int
    prediction: Prediction
    ask: Callable[[Tensor, float, bool, Openings], Tensor]

    def after(self, guided: Tensor) -> Guiding:
        """The same once ``guided`` was made of it."""
        return replace(self, guided=guided)


Guide = Callable[[Guiding], Tensor]
"""The clean latent to go on with, (B, C, h, w), in place of ``guided``."""


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

    ``guidance`` says in which calls the negative prompt is not asked, so that the first cond's answer stands for its
    own, and whether unequal contexts are brought to one length, for which ``empty`` (1, tokens, width) is the encoded
    empty prompt.  For that ``call`` is this call's number in the walk, from 0, and ``calls`` how many are expected,
    ``calls_per_step`` (1 or 2) of them in each step; a walk that ``counts_timesteps`` compares those, not sigmas, with
    the guidance's lowest level, as AUTOMATIC1111 does (``modules/sd_samplers_cfg_denoiser.py``,
    ``modules/sd_samplers_timesteps.py``).

    ``guides`` change the result one after the other; where the prompt alone is asked, it stands for both sides.
    """

    predict: Predict
    prediction: Prediction
    table: NoiseTable
    cond: Tensor | Sequence[Pull]
    uncond: Tensor
    cfg_scale: float
    dtype: torch.dtype = torch.float32
    mix: Combine = combine
    guidance: Guidance = PLAIN
    empty: Tensor | None = None
    call: int = 0
    calls: int = 1
    calls_per_step: int = 1
    counts_timesteps: bool = False
    guides: Sequence[Guide] = ()

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The guided clean latent seen in ``x`` (B, C, h, w), whose noise has deviation ``sigma``."""
        pulls = self._pulls
        if self.cfg_scale == 1.0 and len(pulls) == 1 and pulls[0].weight == 1.0:
            cond = self._ask(x, sigma, [(pulls[0].context, True)])[0]
            return self._led(x, sigma, cond, cond, cond)
        return self.guided_and_unguided(x, sigma)[0]

    def guided_and_unguided(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The guided clean latent and the one seen with ``uncond`` alone (B, C, h, w).

        Both sides are asked, unless the guidance leaves the negative prompt out; then the prompt's stands for both.
        """
        pulls = self._pulls
        weights = [pull.weight for pull in pulls]
        if self._is_unasked(sigma):
            conds = self._answers(x, sigma, [(pull.context, True) for pull in pulls])
            together = _together(conds, conds[0], weights)
            return self._led(x, sigma, together, together, together), conds[0]
        contexts, negative = self._lengthened([pull.context for pull in pulls])
        *conds, uncond = self._answers(x, sigma, [*((context, True) for context in contexts), (negative, False)])
        cond = conds[0] if weights == [1.0] else _together(conds, uncond, weights)
        guided = self.mix(cond, uncond, self.cfg_scale)
        if self.guidance.rescale and sigma > 0:
            guided = self._rescaled(guided, cond, x, sigma)
        return self._led(x, sigma, cond, uncond, guided), uncond

    def _led(self, x: Tensor, sigma: float, cond: Tensor, uncond: Tensor, guided: Tensor) -> Tensor:
        """``guided`` after every guide."""
        for guide in self.guides:
            guided = guide(
                Guiding(
                    x=x,
                    sigma=sigma,
                    cond=cond,
                    uncond=uncond,
                    guided=guided,
                    cfg_scale=self.cfg_scale,
                    call=self.call,
                    calls=self.calls,
                    prediction=self.prediction,
                    ask=self._asked_once_more,
                )
            )
        return guided

    def _asked_once_more(self, x: Tensor, sigma: float, conditional: bool, openings: Openings) -> Tensor:
        """The clean latent of one side (the first of several prompts), with openings of its own."""
        context = self._pulls[0].context if conditional else self.uncond
        return self._ask(x, sigma, [(context, conditional)], openings)[0]

    def _is_unasked(self, sigma: float) -> bool:
        """Whether this call leaves the negative prompt out: skip early CFG, or NGMS."""
        wish = self.guidance
        if wish.skip_early and self.call / self.calls <= wish.skip_early:
            return True
        level = self.table.timestep(sigma) if self.counts_timesteps else sigma
        return level < wish.min_sigma and (wish.min_sigma_all or self.call % 2 == 1)

    def _lengthened(self, conds: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
        """The contexts, equally long if the guidance wants it; ``conds`` have one length."""
        if self.guidance.pad_v0:
            return conds, of_length(self.uncond, conds[0].shape[1])
        if self.guidance.pad and self.empty is not None:
            longest = max(conds[0].shape[1], self.uncond.shape[1])
            padded = [padded_with(self.empty, context, longest) for context in (*conds, self.uncond)]
            return padded[:-1], padded[-1]
        return conds, self.uncond

    def _rescaled(self, guided: Tensor, cond: Tensor, x: Tensor, sigma: float) -> Tensor:
        """``guided`` whose network output has, to the share asked for, the deviation of the prompt's own output."""
        output, of_prompt = (network_output(self.prediction, x, sigma, clean) for clean in (guided, cond))
        return denoised(self.prediction, x, sigma, rescaled(output, of_prompt, self.guidance.rescale))

    def _answers(self, x: Tensor, sigma: float, sides: Sequence[tuple[Tensor, bool]]) -> list[Tensor]:
        """The clean latent of each side, asked in as few calls as their lengths allow."""
        return [answer for batch in _batches(sides) for answer in self._ask(x, sigma, batch)]

    @property
    def _pulls(self) -> Sequence[Pull]:
        return [Pull(self.cond, 1.0)] if isinstance(self.cond, Tensor) else self.cond

    def _ask(
        self, x: Tensor, sigma: float, sides: Sequence[tuple[Tensor, bool]], openings: Openings = NO_OPENINGS
    ) -> tuple[Tensor, ...]:
        """One network call for all ``sides`` (context, whether conditional): the clean latent of each (B, C, h, w)."""
        count = x.shape[0]
        call = NetworkCall(
            x=(x * c_in(sigma)).to(self.dtype).repeat(len(sides), 1, 1, 1),
            timestep=self.table.timestep(sigma),
            sigma=sigma,
            context=torch.cat([context.to(self.dtype).expand(count, -1, -1) for context, _ in sides]),
            image=tuple(range(count)) * len(sides),
            conditional=tuple(conditional for _, conditional in sides for _ in range(count)),
            openings=openings,
            number=self.call,
            steps_done=max(self.call - 1, 0) // self.calls_per_step,
            steps=max(self.calls // self.calls_per_step, 1),
        )
        outputs = self.predict(call).chunk(len(sides))
        return tuple(denoised(self.prediction, x, sigma, output) for output in outputs)


def rescaled(guided: Tensor, cond: Tensor, share: float) -> Tensor:
    """``guided`` (B, C, h, w), to a ``share`` (0 to 1) with the standard deviation of ``cond``, picture by picture.

    Lin et al. 2023 (arXiv:2305.08891), equations 14 to 16; both are outputs of the network.
    """
    wanted, found = (output.std(dim=(1, 2, 3), keepdim=True) for output in (cond, guided))
    return guided * (share * wanted / found + (1 - share))


def of_length(context: Tensor, tokens: int) -> Tensor:
    """A context (B, T, width) cut to so many tokens, or lengthened by its last vector."""
    missing = max(tokens - context.shape[1], 0)
    return torch.cat([context[:, :tokens], context[:, -1:].expand(-1, missing, -1)], dim=1)


def padded_with(empty: Tensor, context: Tensor, tokens: int) -> Tensor:
    """A context (B, T, width) lengthened towards ``tokens`` by whole copies of ``empty`` (1, T', width)."""
    copies = (tokens - context.shape[1]) // empty.shape[1]
    return torch.cat([context, empty.to(context).expand(len(context), -1, -1).repeat(1, copies, 1)], dim=1)


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
