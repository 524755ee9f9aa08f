"""The walk from noise to a clean latent, shared by txt2img, img2img and inpainting."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from webui.conditioning import Contribution, text
from webui.conditioning.embedding import Embedding
from webui.diffusion.guidance import GuidedDenoiser, NetworkCall, Predict
from webui.diffusion.noise import ImageNoise
from webui.diffusion.schedules import Schedule
from webui.diffusion.start import Start
from webui.model import Model
from webui.networks.unet import Openings
from webui.pipeline.moments import Stepped
from webui.request import GenerationRequest
from webui.samplers import Denoise, Sampler


@dataclass(frozen=True, kw_only=True)
class Setup:
    """All that a run needs besides its request: the model, the formula, the grid and what modules contribute.

    ``cond`` and ``uncond`` are (1, tokens, width).  Made once a job by :func:`prepare`.
    """

    model: Model
    sampler: Sampler
    schedule: Schedule
    cond: Tensor
    uncond: Tensor
    contributions: tuple[Contribution, ...] = ()


def prepare(
    request: GenerationRequest,
    model: Model,
    sampler: Sampler,
    schedule: Schedule,
    contributions: Sequence[Contribution] = (),
    embeddings: Sequence[Embedding] = (),
) -> Setup:
    """Encode the prompts of a resolved request, once for all its pictures.

    Its prompt has no network tags any more; words of ``embeddings`` in either prompt become their vectors.
    """
    return Setup(
        model=model,
        sampler=sampler,
        schedule=schedule,
        cond=text.encode(request.prompt, model, request.clip_skip, embeddings),
        uncond=text.encode(request.negative_prompt, model, request.clip_skip, embeddings),
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


def denoiser(request: GenerationRequest, setup: Setup) -> GuidedDenoiser:
    """The guided model of a job, as the function samplers walk."""
    return GuidedDenoiser(
        predict=predictor(setup),
        prediction=setup.model.prediction,
        table=setup.model.noise_table,
        cond=setup.cond,
        uncond=setup.uncond,
        cfg_scale=request.sampling.cfg_scale,
        dtype=setup.model.compute.dtype,
    )


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

    ``constrain`` wraps the denoiser; inpainting keeps the unmasked part with it.
    """
    denoise = constrain(denoiser(request, setup))
    eta = request.sampling.eta or 0.0
    steps = len(start.sigmas) - 1
    result = latent
    for number, step in enumerate(setup.sampler.integrate(denoise, latent, start.sigmas, noise, eta=eta), start=1):
        result = step.x
        yield Stepped(tuple(indices), number, steps, step.denoised)
    return result


def seeds(request: GenerationRequest, indices: Sequence[int]) -> list[int]:
    """Seed of each picture: the request's seed + index."""
    assert request.seed is not None
    return [request.seed + index for index in indices]
