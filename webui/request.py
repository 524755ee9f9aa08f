"""What was asked: one frozen record that the page, the API and the command line all build, checked when it is built.

If something can change a pixel, it is a field here, and so it is in the picture's metadata.  Settings (folders, device,
precision) are not.  Standard library only: the server process imports this without torch.
"""

from __future__ import annotations

import random
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from webui.errors import RequestError
from webui.records import (
    build,
    check_choice,
    check_digest,
    check_flag,
    check_plain,
    check_range,
    check_text,
    check_whole,
    plain,
    shown,
)

MAX_SEED = 2**53 - 1
"""Largest seed: the largest whole number that JSON, JavaScript and a number box keep exactly."""
MAX_SIDE = 4096
MAX_BLUR = 256
"""Of a mask, in pixels: outpainting blurs four times as far as its slider says, which goes to 64."""
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
RANDOM_SEED_RANGE = 4_294_967_294
"""Random seeds are drawn below this, as AUTOMATIC1111 does (modules/processing.py, get_fixed_seed)."""
AUTOMATIC_VAE = "Automatic"
"""The VAE that belongs to the checkpoint: a file of its name, else its own."""
BUILT_IN_VAE = "None"
"""The checkpoint's own VAE."""


class ResizeMode(StrEnum):
    """How a start image is brought to the size asked for; the words AUTOMATIC1111 uses."""

    JUST_RESIZE = "Just resize"
    CROP = "Crop and resize"
    FILL = "Resize and fill"
    LATENT = "Just resize (latent upscale)"


class RandomSource(StrEnum):
    """What draws the noise: torch on the CPU, torch on the device that computes, or an NVIDIA GPU's numbers on any."""

    CPU = "CPU"
    GPU = "GPU"
    NV = "NV"


class MaskMode(StrEnum):
    """Which side of the mask is painted anew."""

    MASKED = "Inpaint masked"
    NOT_MASKED = "Inpaint not masked"


class MaskedContent(StrEnum):
    """What stands under the mask before sampling starts."""

    FILL = "fill"
    ORIGINAL = "original"
    LATENT_NOISE = "latent noise"
    LATENT_NOTHING = "latent nothing"


class InpaintArea(StrEnum):
    """Whether the whole picture or only the masked part, enlarged, goes through the network."""

    WHOLE = "Whole picture"
    ONLY_MASKED = "Only masked"


class Emphasis(StrEnum):
    """What the weights of a prompt's words do to its context; the words AUTOMATIC1111 uses.

    Original keeps the context's mean, No norm does not; Ignore reads the brackets and leaves the context alone, None
    reads them as text.
    """

    ORIGINAL = "Original"
    NO_NORM = "No norm"
    IGNORE = "Ignore"
    NONE = "None"


@dataclass(frozen=True, kw_only=True)
class Size:
    """Width and height of the picture in pixels, multiples of 8 from 64 to 4096."""

    width: int = 512
    height: int = 512

    def __post_init__(self) -> None:
        for name, value in (("Width", self.width), ("Height", self.height)):
            check_whole(name, value, 64, MAX_SIDE)
            if value % 8:
                raise RequestError(f"{name} is {value}; it must be a multiple of 8, for example {value // 8 * 8}.")


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """Numbers that some samplers and schedules let users choose, by the names AUTOMATIC1111's settings have.

    ``s_churn`` raises the noise before each step whose level is from ``s_tmin`` to ``s_tmax`` (0: no upper end);
    ``s_noise`` scales all noise that is added on the way (Karras et al. 2022, arXiv:2206.00364, algorithm 2).
    ``sigma_min``, ``sigma_max`` and ``rho`` shape the schedule (0: the model's and the schedule's own), ``beta_alpha``
    and ``beta_beta`` the Beta schedule.  ``discard_penultimate`` leaves the last level above 0 out; ``full_noise``
    (SGM noise multiplier) starts with the variance of a noised picture; ``zero_terminal_snr`` makes the last trained
    level pure noise.
    """

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = 0.0
    s_noise: float = 1.0
    sigma_min: float = 0.0
    sigma_max: float = 0.0
    rho: float = 0.0
    beta_alpha: float = 0.6
    beta_beta: float = 0.6
    discard_penultimate: bool = False
    full_noise: bool = False
    zero_terminal_snr: bool = False
    unipc_order: int = 3

    def __post_init__(self) -> None:
        check_range("Sigma churn", self.s_churn, 0, 100)
        check_range("Sigma tmin", self.s_tmin, 0, 10_000)
        check_range("Sigma tmax", self.s_tmax, 0, 10_000)
        check_range("Sigma noise", self.s_noise, 0, 2)
        check_range("Schedule min sigma", self.sigma_min, 0, 10_000)
        check_range("Schedule max sigma", self.sigma_max, 0, 10_000)
        check_range("Schedule rho", self.rho, 0, 1000)
        check_range("Beta schedule alpha", self.beta_alpha, 0.01, 100)
        check_range("Beta schedule beta", self.beta_beta, 0.01, 100)
        check_flag("Discard penultimate sigma", self.discard_penultimate)
        check_flag("SGM noise multiplier", self.full_noise)
        check_flag("Zero Terminal SNR", self.zero_terminal_snr)
        check_whole("UniPC order", self.unipc_order, 1, 50)


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """When the negative prompt is asked, and what becomes of the two answers.

    Below ``min_sigma`` (NGMS, negative guidance minimum sigma) the negative prompt is asked in every other call only,
    or with ``min_sigma_all`` in none; ``skip_early`` is the share of the steps at the beginning without it.
    ``rescale`` (0 to 1) brings the guided answer's deviation back to the prompt's (Lin et al. 2023, arXiv:2305.08891,
    equations 14 to 16).  ``pad`` lengthens the shorter of two contexts with the empty prompt so that both are asked in
    one batch, ``pad_v0`` by its last vector.
    """

    min_sigma: float = 0.0
    min_sigma_all: bool = False
    skip_early: float = 0.0
    rescale: float = 0.0
    pad: bool = False
    pad_v0: bool = False

    def __post_init__(self) -> None:
        check_range("Negative Guidance minimum sigma", self.min_sigma, 0, 10_000)
        check_flag("NGMS all steps", self.min_sigma_all)
        check_range("Skip Early CFG", self.skip_early, 0, 1)
        check_range("CFG rescale", self.rescale, 0, 1)
        check_flag("Pad conds", self.pad)
        check_flag("Pad conds v0", self.pad_v0)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampler and schedule by the names users see; ``eta`` None means the sampler's own default."""

    sampler: str = "DPM++ 2M"
    schedule: str = "Automatic"
    steps: int = 20
    cfg_scale: float = 7.0
    eta: float | None = None
    options: SamplerOptions = field(default_factory=SamplerOptions)
    guidance: Guidance = field(default_factory=Guidance)

    def __post_init__(self) -> None:
        check_text("Sampler", self.sampler)
        check_text("Schedule type", self.schedule)
        check_whole("Steps", self.steps, 1, 1000)
        check_range("CFG scale", self.cfg_scale, 0, 100)
        if self.eta is not None:
            check_range("Eta", self.eta, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Where the noise comes from.

    ``variation_strength`` turns it from the seed's (0) to that of ``variation_seed`` (1); with any strength all
    pictures of a job share its seed, and picture i has the variation seed + i.  ``from_width`` and ``from_height``
    (0: off) draw the noise as for a picture of that size and put it in the middle.  ``later_offset`` (ENSD) is added to
    the seeds for all noise after the first.  ``extra`` adds so much noise to a picture that img2img or a second pass
    begins with.
    """

    source: RandomSource = RandomSource.CPU
    variation_seed: int | None = None
    variation_strength: float = 0.0
    from_width: int = 0
    from_height: int = 0
    later_offset: int = 0
    extra: float = 0.0

    def __post_init__(self) -> None:
        check_choice("RNG", self.source, RandomSource)
        if self.variation_seed is not None:
            check_whole("Variation seed", self.variation_seed, 0, MAX_SEED)
        check_range("Variation strength", self.variation_strength, 0, 1)
        check_whole("Resize seed from width", self.from_width, 0, MAX_SIDE)
        check_whole("Resize seed from height", self.from_height, 0, MAX_SIDE)
        check_whole("ENSD", self.later_offset, 0, MAX_SEED)
        check_range("Extra noise", self.extra, 0, 1)


@dataclass(frozen=True, kw_only=True)
class SecondPass:
    """Hires fix: the picture made larger and sampled again.

    ``scale`` multiplies the first pass's sides, unless ``width`` or ``height`` (0: by the other's proportion; both: the
    picture is cut to them) say the size.  ``steps`` 0 means as many as the first pass.  What is None or empty is as in
    the first pass.  ``reuse_conditioning`` keeps the first pass's encoded prompts.
    """

    upscaler: str = "Latent"
    scale: float = 2.0
    width: int = 0
    height: int = 0
    steps: int = 0
    denoising_strength: float = 0.7
    cfg_scale: float | None = None
    sampler: str | None = None
    schedule: str | None = None
    eta: float | None = None
    prompt: str = ""
    negative_prompt: str = ""
    checkpoint: str | None = None
    reuse_conditioning: bool = False

    def __post_init__(self) -> None:
        check_text("Upscaler", self.upscaler)
        check_range("Upscale by", self.scale, 1, 8)
        check_whole("Resize width to", self.width, 0, MAX_SIDE)
        check_whole("Resize height to", self.height, 0, MAX_SIDE)
        check_whole("Hires steps", self.steps, 0, 1000)
        check_range("Denoising strength", self.denoising_strength, 0, 1)
        if self.cfg_scale is not None:
            check_range("Hires CFG Scale", self.cfg_scale, 0, 100)
        if self.eta is not None:
            check_range("The second pass's eta", self.eta, 0, 1)
        check_text("The hires prompt", self.prompt)
        check_text("The hires negative prompt", self.negative_prompt)
        for name, value in (
            ("Hires sampler", self.sampler),
            ("Hires schedule type", self.schedule),
            ("Hires checkpoint", self.checkpoint),
        ):
            if value is not None:
                check_text(name, value)
        check_flag("Reuse the first pass's conditioning", self.reuse_conditioning)

    def size(self, first: Size) -> Size:
        """The size of its pictures after a first pass of ``first``, in whole multiples of 8.  Raises RequestError."""
        width, height = (self.width, self.height) if self.width and self.height else self.enlarged(first)
        return Size(width=width // 8 * 8, height=height // 8 * 8)

    def enlarged(self, first: Size) -> tuple[int, int]:
        """Width and height that the first pass's picture is enlarged to; :meth:`size` of it, from the middle, is kept.

        As AUTOMATIC1111 ``modules/processing.py`` (calculate_target_resolution).
        """
        wide = self.width, self.width * first.height // first.width
        high = self.height * first.width // first.height, self.height
        if not self.width and not self.height:
            return int(first.width * self.scale), int(first.height * self.scale)
        if not self.width or not self.height:
            return wide if self.width else high
        return wide if first.width / first.height < self.width / self.height else high


class RefinerPasses(StrEnum):
    """In which passes of a hires fix the refiner takes over; the words AUTOMATIC1111 uses."""

    FIRST = "first pass"
    SECOND = "second pass"
    BOTH = "both passes"


@dataclass(frozen=True, kw_only=True)
class Refiner:
    """A second checkpoint that takes over at a share ``switch_at`` of the noise, or with ``by_steps`` of the steps."""

    checkpoint: str
    switch_at: float = 0.8
    by_steps: bool = False
    passes: RefinerPasses = RefinerPasses.SECOND

    def __post_init__(self) -> None:
        check_text("Refiner", self.checkpoint)
        check_range("Refiner switch at", self.switch_at, 0, 1)
        check_flag("Refiner switch by sampling steps", self.by_steps)
        check_choice("Hires refiner", self.passes, RefinerPasses)


@dataclass(frozen=True, kw_only=True)
class FaceRestoration:
    """Faces mended by ``model``; ``visibility`` 0 to 1; ``weight`` (CodeFormer) 0: strongest effect, 1: least."""

    model: str
    visibility: float = 1.0
    weight: float = 0.5

    def __post_init__(self) -> None:
        check_text("Face restoration", self.model)
        check_range("Face restoration visibility", self.visibility, 0, 1)
        check_range("CodeFormer weight", self.weight, 0, 1)


@dataclass(frozen=True, kw_only=True)
class TokenMerging:
    """Alike tokens of self-attention merged: the share that goes, 0 none (Bolya, Hoffman 2023, arXiv:2303.17604).

    ``second_pass`` 0 means as in the first.
    """

    ratio: float = 0.0
    second_pass: float = 0.0

    def __post_init__(self) -> None:
        check_range("Token merging ratio", self.ratio, 0, 0.9)
        check_range("Token merging ratio for high-res pass", self.second_pass, 0, 0.9)


@dataclass(frozen=True, kw_only=True)
class Compatibility:
    """Old or other behaviour to imitate, so that pictures made with it can be made again.

    ``old_prompt_editing``: numbers in prompt editing count in each pass alone.  ``downcast_alphas``: the noise table
    was rounded to half precision.  ``old_karras``: Karras levels from 0.1 to 10.  ``whole_timesteps``: the
    network is asked at whole timesteps only (Forge; AUTOMATIC1111's enable_quantization).
    """

    old_prompt_editing: bool = False
    downcast_alphas: bool = False
    old_karras: bool = False
    whole_timesteps: bool = False

    def __post_init__(self) -> None:
        check_flag("Old prompt editing timelines", self.old_prompt_editing)
        check_flag("Downcast alphas_cumprod", self.downcast_alphas)
        check_flag("Old Karras sigmas", self.old_karras)
        check_flag("Whole timesteps", self.whole_timesteps)


@dataclass(frozen=True, kw_only=True)
class SoftInpainting:
    """A mask's grey values as how strongly a place may change; the options of AUTOMATIC1111's soft-inpainting."""

    schedule_bias: float = 1.0
    preservation_strength: float = 0.5
    transition_contrast_boost: float = 4.0
    mask_influence: float = 0.0
    difference_threshold: float = 0.5
    difference_contrast: float = 2.0

    def __post_init__(self) -> None:
        check_range("Schedule bias", self.schedule_bias, 0, 8)
        check_range("Preservation strength", self.preservation_strength, 0, 8)
        check_range("Transition contrast boost", self.transition_contrast_boost, 1, 32)
        check_range("Mask influence", self.mask_influence, 0, 1)
        check_range("Difference threshold", self.difference_threshold, 0, 8)
        check_range("Difference contrast", self.difference_contrast, 0, 8)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A rectangle of a picture: where its left upper corner lies and how large it is, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def __post_init__(self) -> None:
        check_whole("The left edge of a part", self.left, 0, MAX_SIDE)
        check_whole("The top edge of a part", self.top, 0, MAX_SIDE)
        check_whole("The width of a part", self.width, 1, MAX_SIDE)
        check_whole("The height of a part", self.height, 1, MAX_SIDE)


@dataclass(frozen=True, kw_only=True)
class Mask:
    """An inpainting mask.  ``image`` is the SHA-256 of a stored picture whose light pixels are painted anew.

    ``blur`` is the standard deviation of the mask's Gaussian blur in pixels, ``blur_y`` (None: the same) the vertical
    one; ``padding`` counts pixels around the masked box when ``area`` is only the masked part.  ``round`` makes the
    latent's mask either 0 or 1; ``soft`` paints by the mask's grey values.  With ``overlay`` the original is laid over
    what was not painted.

    ``latent`` is the SHA-256 of a picture of the start image's size whose light pixels are painted anew in the latent
    and filled, neither blurred nor reversed, while ``image`` says what of it is shown (None: ``image`` says both).
    ``part`` is what the network sees when ``area`` is only the masked part, None: a box around the mask.
    """

    image: str
    blur: int = 4
    mode: MaskMode = MaskMode.MASKED
    content: MaskedContent = MaskedContent.ORIGINAL
    area: InpaintArea = InpaintArea.WHOLE
    padding: int = 32
    blur_y: int | None = None
    round: bool = True
    overlay: bool = True
    soft: SoftInpainting | None = None
    latent: str | None = None
    part: Part | None = None

    def __post_init__(self) -> None:
        check_digest("The mask", self.image)
        if self.latent is not None:
            check_digest("The latent's mask", self.latent)
        check_whole("Mask blur", self.blur, 0, MAX_BLUR)
        if self.blur_y is not None:
            check_whole("Vertical mask blur", self.blur_y, 0, MAX_BLUR)
        check_flag("Round the mask", self.round)
        check_flag("Overlay the original", self.overlay)
        check_whole("Only masked padding", self.padding, 0, 256)
        check_choice("Mask mode", self.mode, MaskMode)
        check_choice("Masked content", self.content, MaskedContent)
        check_choice("Inpaint area", self.area, InpaintArea)


@dataclass(frozen=True, kw_only=True)
class StartImage:
    """The picture that img2img starts from; with a mask it is inpainting.

    ``image`` is the SHA-256 of the stored file's bytes; ``denoising_strength`` 0 keeps the picture, 1 replaces it.
    ``upscaler`` enlarges where ``resize_mode`` makes it larger.  ``noise_multiplier`` scales the noise it begins with;
    ``exact_steps`` walks as many steps as were asked for; ``background`` (#rrggbb) shows through transparent pixels;
    ``color_correction`` gives the result the colours of the start.
    """

    image: str
    denoising_strength: float = 0.75
    resize_mode: ResizeMode = ResizeMode.JUST_RESIZE
    mask: Mask | None = None
    upscaler: str = "None"
    noise_multiplier: float = 1.0
    exact_steps: bool = False
    background: str = "#ffffff"
    color_correction: bool = False

    def __post_init__(self) -> None:
        check_digest("The start image", self.image)
        check_range("Denoising strength", self.denoising_strength, 0, 1)
        check_choice("Resize mode", self.resize_mode, ResizeMode)
        check_text("The upscaler", self.upscaler)
        check_range("Noise multiplier", self.noise_multiplier, 0, 2)
        check_flag("Exact steps", self.exact_steps)
        if not isinstance(self.background, str) or not _COLOUR.fullmatch(self.background):
            raise RequestError(f"The background is {shown(self.background)}; it must be a colour such as #ffffff.")
        check_flag("Colour correction", self.color_correction)


@dataclass(frozen=True, kw_only=True)
class ModuleUse:
    """One use of a conditioning module: its registered name and its own options by field name (plain JSON values)."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_text("The conditioning module", self.name)
        if not isinstance(self.options, Mapping):
            raise RequestError(f"The options of {self.name} are {shown(self.options)}; they must be named values.")
        check_plain(f"The options of {self.name}", self.options)


@dataclass(frozen=True, kw_only=True)
class ScriptUse:
    """A script that makes several requests of this one: its registered name and its own options by field name.

    ``drawn`` tells that the request's seed was left to chance, for scripts that then draw one for each picture.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    drawn: bool = False

    def __post_init__(self) -> None:
        check_text("The script", self.name)
        if not isinstance(self.options, Mapping):
            raise RequestError(f"The options of {self.name} are {shown(self.options)}; they must be named values.")
        check_plain(f"The options of {self.name}", self.options)
        check_flag("Drawn seed", self.drawn)


@dataclass(frozen=True, kw_only=True)
class Template:
    """The prompts as they were written, with choices (``{a|b}``, ``__name__``) that a seed has made since."""

    prompt: str = ""
    negative_prompt: str = ""
    hires_prompt: str = ""
    hires_negative_prompt: str = ""

    def __post_init__(self) -> None:
        check_text("The prompt's template", self.prompt)
        check_text("The negative prompt's template", self.negative_prompt)
        check_text("The hires prompt's template", self.hires_prompt)
        check_text("The hires negative prompt's template", self.hires_negative_prompt)


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """Everything a person can ask for.  ``seed`` None and ``checkpoint`` None are answered once, by :meth:`resolved`.

    Image ``i`` of ``batch_size * batch_count`` uses seed ``seed + i`` (see :class:`Noise` for variations).
    ``clip_skip`` n takes the n-th last hidden state of the text encoder (1: the last).  ``comma_backtrack`` is within
    how many tokens after a comma a chunk of the prompt may be ended there.  ``vae`` is "Automatic", "None" (the
    checkpoint's own) or a file's name.  ``tiling`` makes the picture's edges fit each other.  ``styles`` are put around
    the prompts when the request is resolved.  With a ``template`` the prompts are what became of it, and no more
    choices are made in them.
    """

    prompt: str = ""
    negative_prompt: str = ""
    styles: tuple[str, ...] = ()
    size: Size = field(default_factory=Size)
    sampling: Sampling = field(default_factory=Sampling)
    seed: int | None = None
    noise: Noise = field(default_factory=Noise)
    batch_size: int = 1
    batch_count: int = 1
    clip_skip: int = 1
    emphasis: Emphasis = Emphasis.ORIGINAL
    comma_backtrack: int = 20
    template: Template | None = None
    checkpoint: str | None = None
    vae: str = AUTOMATIC_VAE
    tiling: bool = False
    second_pass: SecondPass | None = None
    refiner: Refiner | None = None
    start: StartImage | None = None
    face_restoration: FaceRestoration | None = None
    token_merging: TokenMerging = field(default_factory=TokenMerging)
    compatibility: Compatibility = field(default_factory=Compatibility)
    modules: tuple[ModuleUse, ...] = ()
    script: ScriptUse | None = None

    def __post_init__(self) -> None:
        check_text("The prompt", self.prompt)
        check_text("The negative prompt", self.negative_prompt)
        for name in self.styles:
            check_text("The style", name)
        if self.seed is not None:
            check_whole("Seed", self.seed, 0, MAX_SEED)
        check_whole("Batch size", self.batch_size, 1, 64)
        check_whole("Batch count", self.batch_count, 1, 1000)
        check_whole("Clip skip", self.clip_skip, 1, 12)
        check_choice("Emphasis", self.emphasis, Emphasis)
        check_whole("Prompt word wrap length limit", self.comma_backtrack, 0, 74)
        if self.checkpoint is not None:
            check_text("Checkpoint", self.checkpoint)
        check_text("VAE", self.vae)
        check_flag("Tiling", self.tiling)
        for name, seed in (("Seed", self.seed), ("Variation seed", self.noise.variation_seed)):
            if seed is not None and seed + self.pictures - 1 > MAX_SEED:
                raise RequestError(
                    f"{name} is {seed}; with {self.pictures} pictures it must be at most "
                    f"{MAX_SEED - self.pictures + 1}."
                )
        if self.second_pass is not None:
            if self.start is not None:
                raise RequestError("A second pass (hires fix) begins from a first one: it cannot have a start image.")
            self.second_pass.size(self.size)  # says what is wrong with it

    @property
    def pictures(self) -> int:
        """How many pictures the request makes."""
        return self.batch_size * self.batch_count

    @property
    def is_resolved(self) -> bool:
        """Whether nothing random or "default" is left."""
        varied = not self.noise.variation_strength or self.noise.variation_seed is not None
        named = self.checkpoint is not None and self.vae != AUTOMATIC_VAE and not self.styles
        return self.seed is not None and varied and named and self.sampling.eta is not None

    def resolved(self, *, checkpoint: str, vae: str, sampler: str, schedule: str, eta: float) -> Self:
        """This request with every "random" and "default" answered; an answer already given is kept.

        The names come from the registries, which know aliases and which schedule "Automatic" means.
        """
        sampling = replace(self.sampling, sampler=sampler, schedule=schedule, eta=eta)
        noise = self.noise
        if noise.variation_strength and noise.variation_seed is None:
            noise = replace(noise, variation_seed=random.randrange(RANDOM_SEED_RANGE))
        seed = random.randrange(RANDOM_SEED_RANGE) if self.seed is None else self.seed
        return replace(self, seed=seed, noise=noise, checkpoint=checkpoint, vae=vae, sampling=sampling)

    def settled(self, checkpoint: str) -> Self:
        """This request, which has a script, with its seeds drawn and its checkpoint named: all that is random in it.

        Everything else is answered for each of the requests that the script makes of it.
        """
        assert self.script is not None
        noise, script = self.noise, self.script
        if noise.variation_strength and noise.variation_seed is None:
            noise = replace(noise, variation_seed=random.randrange(RANDOM_SEED_RANGE))
        seed = self.seed
        if seed is None:
            seed, script = random.randrange(RANDOM_SEED_RANGE), replace(script, drawn=True)
        return replace(self, seed=seed, noise=noise, script=script, checkpoint=checkpoint)

    def seed_of(self, index: int) -> int:
        """The seed of picture ``index``; with a variation strength all share the job's seed."""
        assert self.seed is not None
        return self.seed if self.noise.variation_strength else self.seed + index

    def variation_seed_of(self, index: int) -> int | None:
        """The variation seed of picture ``index``; None without a variation strength."""
        if not self.noise.variation_strength or self.noise.variation_seed is None:
            return None
        return self.noise.variation_seed + index

    def alone(self, index: int) -> Self:
        """The request that makes just picture ``index`` of this one."""
        varied = self.variation_seed_of(index)
        noise = self.noise if varied is None else replace(self.noise, variation_seed=varied)
        return replace(self, seed=self.seed_of(index), noise=noise, batch_size=1, batch_count=1)

    def to_dict(self) -> dict[str, Any]:
        """A plain JSON-ready dictionary with every field spelled out.  ``from_dict`` takes it back."""
        return typing.cast(dict[str, Any], plain(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from plain values; absent fields take their defaults, unknown ones are an error that names them."""
        return typing.cast(Self, build(cls, data, "request"))
