"""The ``infotext`` field: a picture's text fills what the body leaves out, settings (``override_settings``) included.

Keys and what they fill are those of AUTOMATIC1111 1.10 (``modules/infotext_utils.py``); upstream's mistakes, which swap
width and height of "Seed resize from" and forget "Beta schedule", are not repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from webui.api.sdapi.models import Generation, StableDiffusionProcessingTxt2Img
from webui.api.sdapi.translation import FILLS
from webui.diffusion.schedules import AUTOMATIC, split_sampler_name
from webui.engine.engine import Engine
from webui.engine.options import DEFAULTS, Snapshot, checked
from webui.errors import RequestError
from webui.metadata.infotext import Infotext, parse
from webui.request import MaskMode

Read = Callable[[str], Any]

FIELDS: Mapping[str, tuple[str, Read]] = {
    "Steps": ("steps", int),
    "CFG scale": ("cfg_scale", float),
    "Seed": ("seed", int),
    "Batch size": ("batch_size", int),
    "Variation seed": ("subseed", int),
    "Variation seed strength": ("subseed_strength", float),
    "Denoising strength": ("denoising_strength", float),
    "Refiner": ("refiner_checkpoint", str),
    "Refiner switch at": ("refiner_switch_at", float),
    "Hires upscale": ("hr_scale", float),
    "Hires upscaler": ("hr_upscaler", str),
    "Hires steps": ("hr_second_pass_steps", int),
    "Hires CFG Scale": ("hr_cfg", float),
    "Hires prompt": ("hr_prompt", str),
    "Hires negative prompt": ("hr_negative_prompt", str),
    "Mask blur": ("mask_blur", int),
    "Mask mode": ("inpainting_mask_invert", lambda text: int(text == MaskMode.NOT_MASKED)),
    "Masked content": ("inpainting_fill", lambda text: [fill.value for fill in FILLS].index(text)),
    "Inpaint area": ("inpaint_full_res", lambda text: text == "Only masked"),
    "Masked area padding": ("inpaint_full_res_padding", int),
    "Image CFG scale": ("image_cfg_scale", float),
}
SIZES = {
    "Size": ("width", "height"),
    "Seed resize from": ("seed_resize_from_w", "seed_resize_from_h"),
    "Hires resize": ("hr_resize_x", "hr_resize_y"),
}
LABELS = {
    "VAE": "sd_vae",
    "Clip skip": "CLIP_stop_at_last_layers",
    "RNG": "randn_source",
    "ENSD": "eta_noise_seed_delta",
    "Tiling": "tiling",
    "Emphasis": "emphasis",
    "Face restoration": "face_restoration_model",
    "Hires refiner": "hires_fix_refiner_pass",
    "Conditional mask weight": "inpainting_mask_weight",
    "Noise multiplier": "initial_noise_multiplier",
    "Extra noise": "img2img_extra_noise",
    "NGMS": "s_min_uncond",
    "NGMS all steps": "s_min_uncond_all",
    "Token merging ratio": "token_merging_ratio",
    "Token merging ratio hr": "token_merging_ratio_hr",
    "Pad conds": "pad_cond_uncond",
    "Pad conds v0": "pad_cond_uncond_v0",
    "Old prompt editing timelines": "use_old_scheduling",
    "Downcast alphas_cumprod": "use_downcasted_alpha_bar",
    "Refiner switch by sampling steps": "refiner_switch_by_sample_steps",
    "Eta": "eta_ancestral",
    "Eta DDIM": "eta_ddim",
    "Sigma churn": "s_churn",
    "Sigma tmin": "s_tmin",
    "Sigma tmax": "s_tmax",
    "Sigma noise": "s_noise",
    "Schedule min sigma": "sigma_min",
    "Schedule max sigma": "sigma_max",
    "Schedule rho": "rho",
    "Beta schedule alpha": "beta_dist_alpha",
    "Beta schedule beta": "beta_dist_beta",
    "Discard penultimate sigma": "always_discard_next_to_last_sigma",
    "SGM noise multiplier": "sgm_noise_multiplier",
    "UniPC order": "uni_pc_order",
    "Noise Schedule": "sd_noise_schedule",
    "Skip Early CFG": "skip_early_cond",
}
"""Which key of a text is which setting."""
ABSENT = {
    "Clip skip": "1",
    "RNG": "GPU",
    "Emphasis": "Original",
    "Schedule min sigma": "0",
    "Schedule max sigma": "0",
    "Schedule rho": "0",
    "Refiner switch by sampling steps": "False",
}
"""What a key means that a text leaves out."""
HIRES = ("Hires upscale", "Hires upscaler", "Hires resize")


def filled(body: Generation, engine: Engine) -> Generation:
    """The body with what its ``infotext`` says where the body itself says nothing; the body when it has none."""
    if not body.infotext:
        return body
    read = parse(body.infotext)
    values = _values(read, engine, txt2img=isinstance(body, StableDiffusionProcessingTxt2Img))
    known = type(body).model_fields
    values = {key: value for key, value in values.items() if key in known and key not in body.model_fields_set}
    overrides = {**_overrides(read.fields, engine.options.snapshot()), **(body.override_settings or {})}
    if overrides:
        values["override_settings"] = overrides
    return body.model_copy(update=values)


def _values(read: Infotext, engine: Engine, *, txt2img: bool) -> dict[str, Any]:
    """What the text says as fields of a body; values that cannot be are left out, as a paste leaves them."""
    fields = read.fields
    values: dict[str, Any] = {"prompt": read.prompt, "negative_prompt": read.negative_prompt}
    for key, (name, convert) in FIELDS.items():
        if key in fields:
            try:
                values[name] = convert(fields[key])
            except ValueError:
                continue
    for key, names in SIZES.items():
        if found := re.fullmatch(r"(\d{1,5})x(\d{1,5})", fields.get(key, "")):
            values |= dict(zip(names, map(int, found.groups()), strict=True))
    values |= _sampling(fields, engine)
    if txt2img:
        values["hr_checkpoint_name"] = fields.get("Hires checkpoint", "Use same checkpoint")
        values["hr_sampler_name"] = fields.get("Hires sampler", "Use same sampler")
        values["hr_scheduler"] = _second_schedule(fields, values)
        if "Denoising strength" in fields and any(key in fields for key in HIRES):
            values["enable_hr"] = True
    return values


def _second_schedule(fields: Mapping[str, str], values: Mapping[str, Any]) -> Any:
    if "Hires schedule type" in fields:
        return fields["Hires schedule type"]
    return values["scheduler"] if "Schedule type" in fields else "Use same scheduler"


def _sampling(fields: Mapping[str, str], engine: Engine) -> dict[str, Any]:
    """Sampler and schedule; a schedule that is the sampler's own becomes "Automatic", as upstream has it."""
    if "Sampler" not in fields:
        return {}
    schedule = fields.get("Schedule type", AUTOMATIC)
    samplers, schedules = engine.samplers(), engine.schedules()
    whole = fields["Sampler"] if schedule == AUTOMATIC else f"{fields['Sampler']} {schedule}"
    try:
        name, schedule = split_sampler_name(whole, samplers, schedules)
    except RequestError:
        name = fields["Sampler"]
    return {"sampler_name": name, "scheduler": schedule}


def _overrides(fields: Mapping[str, str], options: Snapshot) -> dict[str, Any]:
    """The settings that the text asks for and that are not so already."""
    overrides = {}
    for key, option in LABELS.items():
        text = fields.get(key, ABSENT.get(key))
        if text is None:
            continue
        try:
            value = checked(option, _value(text, DEFAULTS[option]))
        except (ValueError, RequestError):
            continue
        if value != options[option]:
            overrides[option] = value
    return overrides


def _value(text: str, default: Any) -> Any:
    if isinstance(default, bool):
        return text == "True"
    if isinstance(default, int):
        return int(float(text))
    return float(text) if isinstance(default, float) else text
