"""The walk from noise to a clean latent, shared by txt2img, img2img and inpainting."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from webui.conditioning import Contribution, Walk
from webui.conditioning.embedding import Embedding
from webui.conditioning.text import Encoder, Timed
from webui.diffusion.guidance import NO_OPENINGS, Guide, GuidedDenoiser, NetworkCall, Predict, Pull
from webui.diffusion.noise import ImageNoise, NoiseOptions
from webui.diffusion.schedules import NoiseTable, Schedule, ScheduleOptions
from webui.diffusion.start import Start, StartOptions, steps_from_picture
from webui.errors import NumbersError
from webui.model import Model
from webui.networks.unet import Attend, Openings
from webui.pipeline.moments import Stepped
from webui.pipeline.steering import UNSTEERED, Steering
from webui.prompt.compose import parts
from webui.prompt.schedule import Timeline
from webui.request import GenerationRequest
from webui.result import Pixels
from webui.samplers import Denoise, NoiseSource, Sampler, StepOptions

OLD_KARRAS = (0.1, 10.0)
"""The ends of the Karras schedule before AUTOMATIC1111 took the model's own (use_old_karras_scheduler_sigmas)."""


@dataclass(frozen=True)
class Part:
    """One of the prompts that AND joins: its contexts over the pass, and its weight."""

    timed: Timed
    weight: float


@dataclass(frozen=True, kw_only=True)
class Setup:
    """All that a pass needs besides its request: the model, the formula, the grid and what modules contribute.

    Made once a job, or once for each of its passes, by :func:`prepare`.  ``table`` are the model's noise levels as the
    request wants them.  ``empty`` is the encoded empty prompt, where contexts are padded with it; ``merged_tokens`` the
    share of tokens that self-attention leaves out.  ``extra_channels`` (pictures, C', h, w) are what an inpainting
    model reads beside the latent.  ``refiner`` takes over on the way.  ``retouch`` is what becomes of a picture once it
    is decoded, before it is laid into another one.  ``steering`` is what extensions change on the way,
    ``attention`` how attention is computed, None by the networks' own rule.
    """

    model: Model
    sampler: Sampler
    schedule: Schedule
    table: NoiseTable
    cond: tuple[Part, ...]
    uncond: Timed
    contributions: tuple[Contribution, ...] = ()
    empty: Tensor | None = None
    merged_tokens: float = 0.0
    extra_channels: Tensor | None = None
    refiner: Setup | None = None
    retouch: Callable[[Pixels], Pixels] | None = None
    steering: Steering = UNSTEERED
    attention: Attend | None = None

    @property
    def pads(self) -> bool:
        """Whether its prompts' contexts have different lengths, so that padding them changes something."""
        contexts = (*(part.timed.contexts for part in self.cond), self.uncond.contexts)
        return len({context.shape[1] for each in contexts for context in each}) > 1

    @property
    def last_model(self) -> Model:
        """The model that sees the latent last, and whose VAE decodes it."""
        return self.refiner.model if self.refiner else self.model


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
    encoder = prompt_encoder(request, model, embeddings)
    timeline = timeline or Timeline(calls(request, sampler))
    return Setup(
        model=model,
        sampler=sampler,
        schedule=schedule,
        table=noise_table(request, model),
        cond=tuple(Part(encoder.timed(part.text, timeline), part.weight) for part in parts(request.prompt)),
        uncond=encoder.timed(request.negative_prompt, timeline),
        contributions=tuple(contributions),
        empty=encoder.encode([""])[0] if request.sampling.guidance.pad else None,
        merged_tokens=request.token_merging.ratio,
    )


def prompt_encoder(request: GenerationRequest, model: Model, embeddings: Sequence[Embedding] = ()) -> Encoder:
    """How the prompts of a request become contexts."""
    return Encoder(model, request.clip_skip, tuple(embeddings), request.emphasis, request.comma_backtrack)


def calls(request: GenerationRequest, sampler: Sampler) -> int:
    """How many calls of the denoiser AUTOMATIC1111 counts a pass in: twice the steps for samplers of second order.

    Prompt editing is counted in these, whether they are all walked or not.
    """
    return request.sampling.steps * (2 if sampler.calls_per_step == 2 else 1)


def walked_calls(request: GenerationRequest, sampler: Sampler) -> int:
    """As :func:`calls`, of the steps that a start image leaves to be walked.

    The refiner's share of the steps and the first calls without guidance are counted in these.
    """
    start = request.start
    if start is None or start.exact_steps:
        return calls(request, sampler)
    walked = steps_from_picture(request.sampling.steps, start.denoising_strength)
    return calls(replace(request, sampling=replace(request.sampling, steps=walked)), sampler)


def noise_table(request: GenerationRequest, model: Model) -> NoiseTable:
    """The model's noise levels, as the request wants them."""
    table, old = model.noise_table, request.compatibility
    if old.downcast_alphas:
        table = table.downcast()
    if request.sampling.options.zero_terminal_snr:
        table = table.zero_terminal_snr()
    return replace(table, whole_timesteps=old.whole_timesteps)


def start_options(request: GenerationRequest) -> StartOptions:
    """What a request wishes of its schedule."""
    options = request.sampling.options
    is_old = request.compatibility.old_karras and request.sampling.schedule == "Karras"
    lowest, highest = OLD_KARRAS if is_old else (0.0, 0.0)
    return StartOptions(
        sigma_min=options.sigma_min or lowest,
        sigma_max=options.sigma_max or highest,
        discard_penultimate=options.discard_penultimate,
        full_noise=options.full_noise,
        schedule=ScheduleOptions(rho=options.rho, beta_alpha=options.beta_alpha, beta_beta=options.beta_beta),
    )


def image_noise(request: GenerationRequest, setup: Setup, indices: Sequence[int]) -> ImageNoise:
    """The noise of the pictures ``indices``, at the latent size of the request."""
    noise = request.noise
    varied = [request.variation_seed_of(index) for index in indices]
    resized = noise.from_width > 0 and noise.from_height > 0
    factor = setup.model.vae.config.factor
    options = NoiseOptions(
        source=noise.source,
        variations=tuple(seed for seed in varied if seed is not None),
        strength=noise.variation_strength,
        drawn_at=(noise.from_height // factor, noise.from_width // factor) if resized else None,
        later_offset=noise.later_offset,
    )
    return ImageNoise(seeds(request, indices), latent_shape(request, setup.model), setup.model.compute.device, options)


def predictor(setup: Setup) -> Predict:
    """The UNet as a function of a call, its openings filled by the contributions active at the call's noise level."""
    unet, rewritten = setup.model.unet, setup.steering.call

    def predict(call: NetworkCall) -> Tensor:
        if rewritten is not None:
            call = rewritten(call)
        extra = setup.extra_channels
        openings = Openings(
            merged_tokens=setup.merged_tokens,
            extra_channels=None if extra is None else extra[list(call.image)],
            attention_kind=setup.attention,
        )
        for contribution in setup.contributions:
            if contribution.holds(call.sigma):
                openings = openings.merged(contribution.openings_for(call))
        if call.openings is not NO_OPENINGS:
            openings = openings.merged(call.openings)
        timesteps = torch.full((call.x.shape[0],), call.timestep, dtype=torch.float32, device=call.x.device)
        output: Tensor = unet(call.x, timesteps, call.context, openings)
        return output

    return predict


def denoiser(request: GenerationRequest, setup: Setup, call: int = 0) -> GuidedDenoiser:
    """The guided model of a job as it is at call ``call``, counted from 0: what the prompts say may change with it."""
    contexts = _equally_long([part.timed.at(call) for part in setup.cond])
    sampler = setup.sampler
    return GuidedDenoiser(
        predict=predictor(setup),
        prediction=setup.model.prediction,
        table=sampler.table(setup.table) if sampler.table else setup.table,
        cond=[Pull(context, part.weight) for context, part in zip(contexts, setup.cond, strict=True)],
        uncond=setup.uncond.at(call),
        cfg_scale=request.sampling.cfg_scale / sampler.cfg_divisor,
        dtype=setup.model.compute.dtype,
        guidance=request.sampling.guidance,
        empty=setup.empty,
        call=call,
        calls=walked_calls(request, sampler),
        calls_per_step=2 if sampler.calls_per_step == 2 else 1,
        counts_timesteps=sampler.grid is not None,
        guides=_guides(setup),
    )


def _guides(setup: Setup) -> list[Guide]:
    """Those of the modules, then the extensions'."""
    guides = [_within(part) for part in setup.contributions if part.guide is not None]
    return guides if setup.steering.guided is None else [*guides, setup.steering.guided]


def _within(contribution: Contribution) -> Guide:
    """A contribution's guide, which leaves calls at other noise levels than its own as they are."""
    guide = contribution.guide
    assert guide is not None
    return lambda guiding: guide(guiding) if contribution.holds(guiding.sigma) else guiding.guided


class Counted:
    """The guided model of a job as the ``GuidedDenoise`` that samplers walk, from its first call on.

    Once the refiner's turn has come it stays; ``begins`` is told of it, and of the level it begins at.
    """

    def __init__(
        self,
        request: GenerationRequest,
        setup: Setup,
        begins: Callable[[Setup, float], None] = lambda setup, sigma: None,
    ) -> None:
        self._request, self._setup, self._calls = request, setup, itertools.count()
        self._begins = begins

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The guided clean latent of the next call."""
        return self._seen(self._next(sigma)(x, sigma), sigma)

    def guided_and_unguided(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The guided clean latent of the next call, and the one seen with the negative prompt alone."""
        guided, unguided = self._next(sigma).guided_and_unguided(x, sigma)
        return self._seen(guided, sigma), unguided

    def _seen(self, denoised: Tensor, sigma: float) -> Tensor:
        rewritten = self._setup.steering.denoised
        return denoised if rewritten is None else rewritten(denoised, sigma)

    def _next(self, sigma: float) -> GuidedDenoiser:
        call = next(self._calls)
        if self._setup.refiner and refines(self._request, self._setup, sigma, call):
            self._setup = self._setup.refiner
            self._begins(self._setup, sigma)
        return denoiser(self._request, self._setup, call)


def refines(request: GenerationRequest, setup: Setup, sigma: float, call: int) -> bool:
    """Whether the refiner takes over at a noise level, or at a call counted from 0.

    By the nearest timestep's share of what is left, or of the steps: AUTOMATIC1111 ``modules/sd_samplers_common.py``
    (apply_refiner).
    """
    assert request.refiner is not None
    if request.refiner.by_steps:
        done = call / walked_calls(request, setup.sampler)
    else:
        done = (999 - round(setup.table.timestep(sigma))) / 1000
    return done >= request.refiner.switch_at


def _equally_long(contexts: Sequence[Tensor]) -> list[Tensor]:
    """Contexts (1, tokens, width) brought to the longest's length by their last vectors, as AUTOMATIC1111 does."""
    longest = max(context.shape[1] for context in contexts)
    return [
        torch.cat([context, context[:, -1:].expand(-1, longest - context.shape[1], -1)], dim=1) for context in contexts
    ]


def initial_noise(noise: ImageNoise, setup: Setup, indices: Sequence[int]) -> Tensor:
    """The unit noise (B, C, h, w) that the pictures begin with."""
    drawn = noise.initial()
    return drawn if setup.steering.noise is None else setup.steering.noise(drawn, indices)


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
    sigmas = tuple(start.sigmas)

    def begins(setup: Setup, sigma: float) -> None:
        _tell_begin(setup, sigmas, sigma, indices)

    begins(setup, sigmas[0])
    denoise = constrain(Counted(request, setup, begins))
    options = request.sampling.options
    formula = setup.sampler.formula(
        StepOptions(
            churn=options.s_churn,
            churn_low=options.s_tmin,
            churn_high=options.s_tmax or math.inf,
            order=options.unipc_order,
        )
    )
    source: NoiseSource = noise.brownian(start.levels) if setup.sampler.brownian else noise
    if setup.sampler.scales_noise and options.s_noise != 1.0:
        source = _scaled(source, options.s_noise)
    steps = len(start.sigmas) - 1
    if setup.steering.start is not None:
        latent = setup.steering.start(latent, start.sigmas, indices)
    result = latent
    for number, step in enumerate(
        formula(denoise, latent, start.sigmas, source, eta=request.sampling.eta or 0.0), start=1
    ):
        result = step.x
        if not bool(torch.isfinite(step.denoised).all()):
            raise NumbersError(no_numbers(setup.last_model, number))
        yield Stepped(tuple(indices), number, max(number, steps), step.denoised)
    return result


def _tell_begin(setup: Setup, sigmas: tuple[float, ...], from_sigma: float, indices: Sequence[int]) -> None:
    """Tell the contributions that want to know that their model begins to walk."""
    walking = Walk(
        indices=tuple(indices),
        sigmas=sigmas,
        from_sigma=from_sigma,
        cond=tuple((part.timed, part.weight) for part in setup.cond),
        uncond=setup.uncond,
    )
    for contribution in setup.contributions:
        if contribution.begin is not None:
            contribution.begin(walking)


def no_numbers(model: Model, step: int) -> str:
    """The sentence for a UNet whose answer is no number."""
    dtype = model.compute.dtype_name
    if dtype == "fp32":
        cause = "its file or that of a LoRA is damaged, or a weight in the prompt is far too large"
    else:
        cause = (
            f"its values are too large for {dtype}; start with --precision fp32, or choose another checkpoint or LoRA"
        )
    return f"The model {model.name} answered no numbers (NaN) in step {step}: {cause}."


def _scaled(source: NoiseSource, factor: float) -> NoiseSource:
    return lambda sigma, lower: source(sigma, lower) * factor


def seeds(request: GenerationRequest, indices: Sequence[int]) -> list[int]:
    """Seed of each picture."""
    return [request.seed_of(index) for index in indices]
