"""A body of ``txt2img`` or ``img2img`` and the settings of the moment -> the request that the engine knows.

The settings are a snapshot with the body's ``override_settings`` over them: it lives as long as the job.  Nothing of
it is ever stored, also with ``override_settings_restore_afterwards`` false, which upstream takes as leave to keep them.
"""

from __future__ import annotations

from typing import Any

from webui.api.sdapi.always_on import module_uses, soft_inpainting, told_modules
from webui.api.sdapi.errors import UpstreamError
from webui.api.sdapi.models import (
    Generation,
    StableDiffusionProcessingImg2Img,
    StableDiffusionProcessingTxt2Img,
)
from webui.api.sdapi.pictures import stored
from webui.diffusion.schedules import AUTOMATIC, find_schedule, split_sampler_name
from webui.engine.engine import Engine
from webui.engine.option_fields import face_restoration, with_settings
from webui.engine.options import CHECKPOINT, Snapshot
from webui.errors import RequestError
from webui.prompt.extra_networks import extract
from webui.request import (
    MAX_SEED,
    GenerationRequest,
    InpaintArea,
    Mask,
    MaskedContent,
    MaskMode,
    Noise,
    Refiner,
    ResizeMode,
    Sampling,
    SecondPass,
    Size,
    StartImage,
)
from webui.samplers import Sampler

RESIZE_MODES = tuple(ResizeMode)
FILLS = (MaskedContent.FILL, MaskedContent.ORIGINAL, MaskedContent.LATENT_NOISE, MaskedContent.LATENT_NOTHING)
SAME = ("Use same sampler", "Use same scheduler", "Use same checkpoint")
HIRES_DENOISING = 0.75
"""Used where a second pass was asked for without a strength; upstream fails with a TypeError there."""


def settings_of(body: Generation, engine: Engine) -> Snapshot:
    """The settings that count for this body: those of the moment, its overrides, and fields that stand for settings."""
    fields = {
        "s_min_uncond": body.s_min_uncond,
        "s_churn": body.s_churn,
        "s_tmin": body.s_tmin,
        "s_tmax": body.s_tmax,
        "s_noise": body.s_noise,
        "eta_ddim": body.eta,
        "eta_ancestral": body.eta,
        "tiling": body.tiling,
        "face_restoration": body.restore_faces,
    }
    if isinstance(body, StableDiffusionProcessingImg2Img):
        fields["initial_noise_multiplier"] = body.initial_noise_multiplier
    said = {key: value for key, value in fields.items() if value is not None}
    overrides = {key: value for key, value in (body.override_settings or {}).items() if value is not None}
    options = engine.options.snapshot({**overrides, **said})
    if options[CHECKPOINT]:
        check_checkpoint(str(options[CHECKPOINT]), engine)
    return options


def check_checkpoint(name: str, engine: Engine) -> None:
    """Refuse a checkpoint that is not here, as setting the option does upstream."""
    try:
        engine.find_model(name)
    except RequestError as error:
        raise UpstreamError(500, f"Unknown checkpoint: {name}") from error


def to_request(body: Generation, options: Snapshot, engine: Engine) -> GenerationRequest:
    """The request that the body means.  Raises UpstreamError, RequestError, PictureError, FetchError."""
    sampler, schedule = _sampler(body.sampler_name or body.sampler_index, body.scheduler, engine)
    width, height, second_pass = _sizes(body)
    prompt, negative = body.prompt, body.negative_prompt
    if body.disable_extra_networks:
        prompt = extract(prompt).text
    request = GenerationRequest(
        prompt=prompt,
        negative_prompt=negative,
        styles=tuple(body.styles or ()),
        size=Size(width=width // 8 * 8, height=height // 8 * 8),
        sampling=Sampling(sampler=sampler.name, schedule=schedule, steps=body.steps, cfg_scale=body.cfg_scale),
        seed=None if body.seed < 0 else body.seed,
        noise=Noise(
            variation_seed=None if body.subseed < 0 else min(body.subseed, MAX_SEED),
            variation_strength=body.subseed_strength,
            from_width=max(body.seed_resize_from_w, 0),
            from_height=max(body.seed_resize_from_h, 0),
        ),
        batch_size=body.batch_size,
        batch_count=body.n_iter,
        second_pass=second_pass,
        refiner=_refiner(body),
        start=_start(body, options, engine) if isinstance(body, StableDiffusionProcessingImg2Img) else None,
        face_restoration=face_restoration(options) if body.restore_faces else None,
        modules=(
            *module_uses(body.alwayson_scripts, engine.modules(), lambda text: stored(text, options, engine)),
            *told_modules(body.infotext or "", body.alwayson_scripts, engine.plugins),
        ),
    )
    return with_settings(request, options, default_eta=sampler.default_eta)


def _sampler(name: str, schedule: str | None, engine: Engine) -> tuple[Sampler, str]:
    """The sampler and the schedule's name; an old combined name ("DPM++ 2M Karras") says both."""
    samplers, schedules = engine.samplers(), engine.schedules()
    try:
        found, split = split_sampler_name(name, samplers, schedules)
    except RequestError as error:
        raise UpstreamError(400, "Sampler not found") from error
    sampler = next(one for one in samplers if one.name == found)
    return sampler, split if split != AUTOMATIC else _schedule(schedule, engine)


def _schedule(name: str | None, engine: Engine) -> str:
    if not name or name.casefold() == AUTOMATIC.casefold():
        return AUTOMATIC
    try:
        return find_schedule(name, engine.schedules()).name
    except RequestError as error:
        raise UpstreamError(400, "Scheduler not found") from error


def _sizes(body: Generation) -> tuple[int, int, SecondPass | None]:
    """The first pass's size, and the second pass; old clients name the first pass's size apart and mean the other."""
    if not isinstance(body, StableDiffusionProcessingTxt2Img) or not body.enable_hr:
        return body.width, body.height, None
    if body.firstpass_image is not None:
        raise RequestError("firstpass_image is not supported; send the picture to img2img instead.")
    width, height = body.width, body.height
    to_width, to_height = body.hr_resize_x, body.hr_resize_y
    if body.firstphase_width or body.firstphase_height:
        to_width, to_height = width, height
        width, height = body.firstphase_width or width, body.firstphase_height or height
    strength = body.denoising_strength
    second = SecondPass(
        upscaler=body.hr_upscaler or "Latent",
        scale=body.hr_scale,
        width=to_width,
        height=to_height,
        steps=body.hr_second_pass_steps,
        denoising_strength=HIRES_DENOISING if strength is None else strength,
        cfg_scale=body.hr_cfg,
        sampler=_own(body.hr_sampler_name),
        schedule=_own(body.hr_scheduler),
        prompt=body.hr_prompt,
        negative_prompt=body.hr_negative_prompt,
        checkpoint=_own(body.hr_checkpoint_name),
    )
    return width, height, second


def _own(name: str | None) -> str | None:
    """A second pass's own choice, None where it is that of the first."""
    return None if not name or name in SAME else name


def _refiner(body: Generation) -> Refiner | None:
    if body.refiner_checkpoint in (None, "", "None", "none"):
        return None
    assert body.refiner_checkpoint is not None
    switch_at = 0.0 if body.refiner_switch_at is None else body.refiner_switch_at
    return Refiner(checkpoint=body.refiner_checkpoint, switch_at=switch_at)


def _start(body: StableDiffusionProcessingImg2Img, options: Snapshot, engine: Engine) -> StartImage:
    if not body.init_images:
        raise UpstreamError(404, "Init image not found")
    if len(body.init_images) > 1:
        raise RequestError("Only one start image a request is supported; send the others in requests of their own.")
    if not 0 <= body.resize_mode < len(RESIZE_MODES):
        raise RequestError(f"resize_mode is {body.resize_mode}; it must be from 0 to {len(RESIZE_MODES) - 1}.")
    strength = body.denoising_strength
    return StartImage(
        image=stored(body.init_images[0], options, engine),
        denoising_strength=HIRES_DENOISING if strength is None else strength,
        resize_mode=RESIZE_MODES[body.resize_mode],
        mask=_mask(body, options, engine),
    )


def _mask(body: StableDiffusionProcessingImg2Img, options: Snapshot, engine: Engine) -> Mask | None:
    if not body.mask:
        if body.latent_mask:
            raise RequestError("latent_mask says what is painted within a mask; send that as mask.")
        return None
    if not 0 <= body.inpainting_fill < len(FILLS):
        raise RequestError(f"inpainting_fill is {body.inpainting_fill}; it must be from 0 to {len(FILLS) - 1}.")
    across, down = body.mask_blur_x, body.mask_blur_y
    if body.mask_blur is not None:
        across = down = body.mask_blur
    named: dict[str, Any] = {"blur_y": down} if down != across else {}
    return Mask(
        image=stored(body.mask, options, engine),
        blur=across,
        mode=MaskMode.NOT_MASKED if body.inpainting_mask_invert else MaskMode.MASKED,
        content=FILLS[body.inpainting_fill],
        area=InpaintArea.ONLY_MASKED if body.inpaint_full_res else InpaintArea.WHOLE,
        padding=body.inpaint_full_res_padding,
        round=body.mask_round,
        soft=soft_inpainting(body.alwayson_scripts),
        latent=stored(body.latent_mask, options, engine) if body.latent_mask else None,
        **named,
    )
