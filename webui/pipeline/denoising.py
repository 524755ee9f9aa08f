"""The walk from noise to a clean latent, shared by txt2img, img2img and inpainting."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from webui.conditioning import Contribution
from webui.conditioning.embedding import Embedding
from webui.conditioning.text import Encoder, Timed
from webui.diffusion.guidance import GuidedDenoiser, NetworkCall, Predict, Pull
from webui.diffusion.noise import ImageNoise
from webui.diffusion.schedules import Schedule
from webui.diffusion.start import Start
from webui.model import Model
from webui.networks.unet import Openings
from webui.pipeline.moments import Stepped
from webui.prompt.compose import parts
from webui.prompt.schedule import Timeline
from webui.request import GenerationRequest
from webui.samplers import Denoise, Sampler


@dataclass(frozen=True)
class Part:
    """One of the prompts that AND joins: its contexts over the pass, and its weight."""

    timed: Timed
    weight: float


@dataclass(frozen=True, kw_only=True)
class Setup:
    """All that a run needs besides its request: the model, the formula, the grid and what modules contribute.

    Made once a job, or once for each of its passes, by :func:`prepare`.
    """

    model: Model
    sampler: Sampler
    schedule: Schedule
    cond: tuple[Part, ...]
    uncond: Timed
    contributions: tuple[Contribution, ...] = ()


def prepare(
    request: GenerationRequest,
    model: Model,
    sampler: Sampler,
    schedule: Schedule,
    contributions: Sequence[Contribution] = (),
    embeddings: Sequence[Embedding] = (),
    timeline: Timeline | None = None,
) -> Setup:
    """Encode the prompts of a resolved request, once for all its pictures.

    Its prompts have no comments and network tags any more; words of ``embeddings`` in either become their vectors.
    ``timeline`` is how the numbers in them are counted; without one as in the only pass of this request.
    """
    encoder = Encoder(model, request.clip_skip, tuple(embeddings), request.emphasis)
    timeline = timeline or Timeline(request.sampling.steps * sampler.calls_per_step)
    return Setup(
        model=model,
        sampler=sampler,
        schedule=schedule,
        cond=tuple(Part(encoder.timed(part.text, timeline), part.weight) for part in parts(request.prompt)),
        uncond=encoder.timed(request.negative_prompt, timeline),
        contributions=tuple(contributions),
    )


def predictor(setup: Setup) -> Predict:
    """The UNet as a function of a call, its openings filled by the contributions active at the call's noise level."""
    unet = setup.model.unet

    def predict(call: NetworkCall) -> Tensor:
        openings = Openings()
        for contribution in setup.contributions:
            low, high = contribution.sigma_range
            if low <= call.sigma <= high:
                openings = openings.merged(contribution.openings)
        timesteps = torch.full((call.x.shape[0],), call.timestep, dtype=torch.float32, device=call.x.device)
        output: Tensor = unet(call.x, timesteps, call.context, openings)
        return output

    return predict


def denoiser(request: GenerationRequest, setup: Setup, call: int = 0) -> GuidedDenoiser:
    """The guided model of a job as it is at call ``call``, counted from 0: what the prompts say may change with it."""
    contexts = _equally_long([part.timed.at(call) for part in setup.cond])
    table, sampler = setup.model.noise_table, setup.sampler
    return GuidedDenoiser(
        predict=predictor(setup),
        prediction=setup.model.prediction,
        table=sampler.table(table) if sampler.table else table,
        cond=[Pull(context, part.weight) for context, part in zip(contexts, setup.cond, strict=True)],
        uncond=setup.uncond.at(call),
        cfg_scale=request.sampling.cfg_scale / sampler.cfg_divisor,
        dtype=setup.model.compute.dtype,
    )


class Counted:
    """The guided model of a job as the ``GuidedDenoise`` that samplers walk, from its first call on."""

    def __init__(self, request: GenerationRequest, setup: Setup) -> None:
        self._request, self._setup, self._calls = request, setup, itertools.count()

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The guided clean latent of the next call."""
        return denoiser(self._request, self._setup, next(self._calls))(x, sigma)

    def guided_and_unguided(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The guided clean latent of the next call, and the one seen with the negative prompt alone."""
        return denoiser(self._request, self._setup, next(self._calls)).guided_and_unguided(x, sigma)


def _equally_long(contexts: Sequence[Tensor]) -> list[Tensor]:
    """Contexts (1, tokens, width) brought to the longest's length by their last vectors, as AUTOMATIC1111 does."""
    longest = max(context.shape[1] for context in contexts)
    return [
        torch.cat([context, context[:, -1:].expand(-1, longest - context.shape[1], -1)], dim=1) for context in contexts
    ]


def latent_shape(request: GenerationRequest, model: Model) -> tuple[int, int, int]:
    """(C, h, w) of the latent of one picture of the request."""
    factor = model.vae.config.factor
    return model.unet.config.out_channels, request.size.height // factor, request.size.width // factor


def walk(
    request: GenerationRequest,
    setup: Setup,
    start: Start,
    indices: Sequence[int],
    noise: ImageNoise,
    latent: Tensor,
    constrain: Callable[[Denoise], Denoise] = lambda denoise: denoise,
) -> Generator[Stepped, None, Tensor]:
    """Sample from ``latent`` (B, C, h, w) float32; yields each step and returns the clean latent.

    ``constrain`` wraps the denoiser; inpainting keeps the unmasked part with it.  A sampler that plans its own levels
    may take more steps than announced; the announcement grows with it.
    """
    denoise = constrain(Counted(request, setup))
    eta = request.sampling.eta or 0.0
    steps = len(start.sigmas) - 1
    result = latent
    source = noise.brownian(start.levels) if setup.sampler.brownian else noise
    for number, step in enumerate(setup.sampler.integrate(denoise, latent, start.sigmas, source, eta=eta), start=1):
        result = step.x
        yield Stepped(tuple(indices), number, max(number, steps), step.denoised)
    return result


def seeds(request: GenerationRequest, indices: Sequence[int]) -> list[int]:
    """Seed of each picture: the request's seed + index."""
    assert request.seed is not None
    return [request.seed + index for index in indices]
