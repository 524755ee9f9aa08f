"""The table of the page's fields: for each its place in the request, its words and its range.  Without gradio.

Everything else follows from it: the widgets (``inputs``), the request that they ask for and back (``form``), the
tooltips (``app``).  Every leaf of the request stands here or in :data:`WITHOUT_WIDGET`; a test compares.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from webui.request import GenerationRequest

RANDOM = -1
"""What a seed's box holds when the seed is to be drawn."""
SAME_SAMPLER = "Use same sampler"
SAME_SCHEDULE = "Use same scheduler"
SAME_CHECKPOINT = "Use same checkpoint"


@dataclass(frozen=True)
class Leaf:
    """A field of the request or of a record in it: its type without None, its default, whether it may be None."""

    kind: Any
    default: Any
    optional: bool


def leaves(record: type = GenerationRequest, path: str = "") -> Iterator[tuple[str, Leaf]]:
    """Every leaf of a record by its place ("sampling.options.s_churn"), records in it opened."""
    hints = typing.get_type_hints(record)
    for one in dataclasses.fields(record):
        kind, optional = _without_none(hints[one.name])
        place = f"{path}{one.name}"
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from leaves(kind, f"{place}.")
            continue
        default = None if one.default is dataclasses.MISSING else one.default
        yield place, Leaf(kind, default, optional)


def _without_none(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return kinds[0], True
    return hint, False


_LEAVES = dict(leaves())


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of the page.

    ``name`` is its name among the field values, ``path`` its place in the request, ``element`` the end of its element
    id (``name`` when empty).  ``low``, ``high`` and ``step`` are what a slider offers; a value read from a picture may
    lie outside, and the slider then grows.  ``none`` is what the widget holds where the request holds None.
    ``part`` names the switch without which the field does not count; ``tab`` where it stands: in both tabs (""), in
    "txt2img" or "img2img" alone, or on "top" for both.
    """

    name: str
    path: str
    label: str
    hint: str = ""
    low: float | None = None
    high: float | None = None
    step: float | None = None
    none: Any = ""
    part: str = ""
    tab: str = ""
    element: str = ""

    @cached_property
    def leaf(self) -> Leaf:
        """The request's field."""
        return _LEAVES[self.path]

    @property
    def default(self) -> Any:
        """What a fresh page shows."""
        value = self.leaf.default
        if value is None:
            return self.none if self.leaf.optional else None
        if isinstance(value, tuple):
            return list(value)
        return value.value if isinstance(value, StrEnum) else value

    @property
    def choices(self) -> list[str]:
        """What can be chosen where the request says it; [] where it does not."""
        kind = self.leaf.kind
        return [one.value for one in kind] if isinstance(kind, type) and issubclass(kind, StrEnum) else []


SWITCHES: Mapping[str, tuple[str, str, str, str]] = {
    "enable_hr": ("second_pass", "Hires. fix", "txt2img", "Make the picture larger and sample it again."),
    "enable_refiner": ("refiner", "Refiner", "", "Let a second checkpoint take over towards the end."),
    "restore_faces": ("face_restoration", "Restore faces", "", "Mend the faces of finished pictures."),
    "soft_inpainting": (
        "start.mask.soft",
        "Soft inpainting",
        "img2img",
        "Take the mask's greys as how much may change.",
    ),
    "subseed_show": ("noise", "Extra", "", "Vary a seed a little, or keep its composition at another size."),
}
"""The page's switches: the part of the request that each turns on, its label, its tab and a hint."""


def _slider(
    name: str, path: str, label: str, low: float, high: float, step: float, hint: str = "", **more: Any
) -> Field:
    return Field(name=name, path=path, label=label, low=low, high=high, step=step, hint=hint, **more)


def _field(name: str, path: str, label: str, hint: str = "", **more: Any) -> Field:
    return Field(name=name, path=path, label=label, hint=hint, **more)


_PROMPTS = (
    _field("prompt", "prompt", "Prompt"),
    _field("negative_prompt", "negative_prompt", "Negative prompt", element="neg_prompt"),
    _field("styles", "styles", "Styles", "Texts of styles.csv that are put around the prompts."),
)
_TOP = (
    _field(
        "checkpoint",
        "checkpoint",
        "Stable Diffusion checkpoint",
        none=None,
        tab="top",
        element="setting_sd_model_checkpoint",
    ),
    _field(
        "vae",
        "vae",
        "SD VAE",
        "Automatic: the file that belongs to the checkpoint, else its own.",
        tab="top",
        element="setting_sd_vae",
    ),
    _slider(
        "clip_skip",
        "clip_skip",
        "Clip skip",
        1,
        12,
        1,
        "Leave out the last layers of the text encoder.",
        tab="top",
        element="setting_CLIP_stop_at_last_layers",
    ),
)
_MAIN = (
    _field("sampler", "sampling.sampler", "Sampling method", element="sampling"),
    _field("schedule", "sampling.schedule", "Schedule type", element="scheduler"),
    _slider("steps", "sampling.steps", "Sampling steps", 1, 150, 1),
    _slider("cfg_scale", "sampling.cfg_scale", "CFG Scale", 1, 30, 0.5, "How strongly the prompt pulls."),
    _slider("width", "size.width", "Width", 64, 2048, 8),
    _slider("height", "size.height", "Height", 64, 2048, 8),
    _slider("batch_count", "batch_count", "Batch count", 1, 100, 1, "How many batches are made, one after the other."),
    _slider("batch_size", "batch_size", "Batch size", 1, 8, 1, "How many pictures are made at a time."),
    _field("seed", "seed", "Seed", "-1 draws one.", none=RANDOM),
    _field("tiling", "tiling", "Tiling", "The picture's edges fit each other, as for a wallpaper."),
)
_SEED = (
    _field(
        "variation_seed",
        "noise.variation_seed",
        "Variation seed",
        "-1 draws one.",
        none=RANDOM,
        part="subseed_show",
        element="subseed",
    ),
    _slider(
        "variation_strength",
        "noise.variation_strength",
        "Variation strength",
        0,
        1,
        0.01,
        "0: the seed's noise, 1: the variation seed's.",
        part="subseed_show",
        element="subseed_strength",
    ),
    _slider(
        "seed_from_width",
        "noise.from_width",
        "Resize seed from width",
        0,
        2048,
        8,
        "Draw the noise as for a picture of this size (0: off).",
        part="subseed_show",
        element="seed_resize_from_w",
    ),
    _slider(
        "seed_from_height",
        "noise.from_height",
        "Resize seed from height",
        0,
        2048,
        8,
        "Draw the noise as for a picture of this size (0: off).",
        part="subseed_show",
        element="seed_resize_from_h",
    ),
)
_HIRES = (
    _field("hr_upscaler", "second_pass.upscaler", "Upscaler"),
    _slider(
        "hr_steps",
        "second_pass.steps",
        "Hires steps",
        0,
        150,
        1,
        "0: as many as the first pass.",
        element="hires_steps",
    ),
    _slider(
        "hr_denoising",
        "second_pass.denoising_strength",
        "Denoising strength",
        0,
        1,
        0.01,
        "How much of the enlarged picture is made anew.",
        element="denoising_strength",
    ),
    _slider("hr_scale", "second_pass.scale", "Upscale by", 1, 4, 0.05),
    _slider(
        "hr_width",
        "second_pass.width",
        "Resize width to",
        0,
        2048,
        8,
        "0: by the other side, or by the factor.",
        element="hr_resize_x",
    ),
    _slider(
        "hr_height",
        "second_pass.height",
        "Resize height to",
        0,
        2048,
        8,
        "0: by the other side, or by the factor.",
        element="hr_resize_y",
    ),
    _field("hr_checkpoint", "second_pass.checkpoint", "Hires checkpoint", none=SAME_CHECKPOINT),
    _field("hr_sampler", "second_pass.sampler", "Hires sampling method", none=SAME_SAMPLER),
    _field("hr_schedule", "second_pass.schedule", "Hires schedule type", none=SAME_SCHEDULE, element="hr_scheduler"),
    _field("hr_cfg_scale", "second_pass.cfg_scale", "Hires CFG Scale", "Empty: as in the first pass."),
    _field("hr_eta", "second_pass.eta", "Hires eta", "Empty: as in the first pass, or the hires sampler's own."),
    _field("hr_prompt", "second_pass.prompt", "Hires prompt", "Empty: as in the first pass.", element="hires_prompt"),
    _field(
        "hr_negative_prompt",
        "second_pass.negative_prompt",
        "Hires negative prompt",
        "Empty: as in the first pass.",
        element="hires_neg_prompt",
    ),
    _field(
        "hr_reuse_conditioning",
        "second_pass.reuse_conditioning",
        "Use the first pass's prompts as encoded",
        "AUTOMATIC1111's hires_fix_use_firstpass_conds: networks named in the hires prompt do not load.",
    ),
)
_REFINER = (
    _field("refiner_checkpoint", "refiner.checkpoint", "Checkpoint", element="checkpoint"),
    _slider(
        "refiner_switch_at",
        "refiner.switch_at",
        "Switch at",
        0.01,
        1,
        0.01,
        "After which share of the way.",
        element="switch_at",
    ),
    _field(
        "refiner_passes",
        "refiner.passes",
        "Hires refiner",
        "In which pass of a hires fix it takes over.",
        tab="txt2img",
    ),
    _field("refiner_by_steps", "refiner.by_steps", "Count the share in steps", "Instead of in noise."),
)
_FACES = (
    _field("face_model", "face_restoration.model", "Face restoration model"),
    _slider(
        "face_visibility", "face_restoration.visibility", "Visibility", 0, 1, 0.01, "How much of the mended face shows."
    ),
    _slider(
        "face_weight", "face_restoration.weight", "CodeFormer weight", 0, 1, 0.01, "0: strongest effect, 1: least."
    ),
)
_SAMPLER = (
    _field(
        "eta",
        "sampling.eta",
        "Eta",
        "Noise added anew at each step: 0 none, 1 all. Empty: the sampler's own (0 for DDIM, 1 for ancestral ones).",
    ),
    _slider("s_churn", "sampling.options.s_churn", "Sigma churn", 0, 100, 0.01, "Noise added before each step."),
    _slider("s_tmin", "sampling.options.s_tmin", "Sigma tmin", 0, 10, 0.01, "Below this noise level none is added."),
    _slider(
        "s_tmax",
        "sampling.options.s_tmax",
        "Sigma tmax",
        0,
        999,
        0.01,
        "Above this noise level none is added; 0: no end.",
    ),
    _slider("s_noise", "sampling.options.s_noise", "Sigma noise", 0, 1.1, 0.001, "Factor of all noise that is added."),
    _field("sigma_min", "sampling.options.sigma_min", "Schedule min sigma", "0: the model's."),
    _field("sigma_max", "sampling.options.sigma_max", "Schedule max sigma", "0: the model's."),
    _field(
        "rho", "sampling.options.rho", "Schedule rho", "0: the schedule's own (7 for Karras, 1 for Polyexponential)."
    ),
    _slider(
        "beta_alpha", "sampling.options.beta_alpha", "Beta schedule alpha", 0.01, 1, 0.01, element="beta_dist_alpha"
    ),
    _slider("beta_beta", "sampling.options.beta_beta", "Beta schedule beta", 0.01, 1, 0.01, element="beta_dist_beta"),
    _slider("unipc_order", "sampling.options.unipc_order", "UniPC order", 1, 50, 1, element="uni_pc_order"),
    _slider(
        "s_min_uncond",
        "sampling.guidance.min_sigma",
        "Negative Guidance minimum sigma",
        0,
        15,
        0.01,
        "NGMS: below this noise level the negative prompt is asked at every other step only.",
    ),
    _field(
        "s_min_uncond_all",
        "sampling.guidance.min_sigma_all",
        "NGMS all steps",
        "Below it the negative prompt is not asked at all.",
    ),
    _slider(
        "skip_early_cond",
        "sampling.guidance.skip_early",
        "Skip Early CFG",
        0,
        1,
        0.01,
        "Share of the steps at the beginning without the negative prompt.",
    ),
    _slider(
        "cfg_rescale",
        "sampling.guidance.rescale",
        "CFG rescale",
        0,
        1,
        0.01,
        "Keeps high CFG from washing out contrast.",
    ),
    _field(
        "rng",
        "noise.source",
        "RNG",
        "What draws the noise; NV: an NVIDIA card's numbers on any machine.",
        element="randn_source",
    ),
    _field(
        "ensd",
        "noise.later_offset",
        "ENSD",
        "Eta noise seed delta: added to the seed for all noise after the first.",
        element="eta_noise_seed_delta",
    ),
    _slider(
        "extra_noise",
        "noise.extra",
        "Extra noise",
        0,
        1,
        0.01,
        "Added to a picture before img2img or the hires pass.",
        element="img2img_extra_noise",
    ),
    _field(
        "discard_penultimate",
        "sampling.options.discard_penultimate",
        "Discard penultimate sigma",
        element="always_discard_next_to_last_sigma",
    ),
    _field("sgm_noise_multiplier", "sampling.options.full_noise", "SGM noise multiplier"),
    _field(
        "zero_terminal_snr",
        "sampling.options.zero_terminal_snr",
        "Zero Terminal SNR",
        "The last trained noise level becomes pure noise (noise schedule).",
    ),
)
_MORE = (
    _field("emphasis", "emphasis", "Emphasis", "What (brackets) in prompts do."),
    _slider(
        "comma_backtrack",
        "comma_backtrack",
        "Prompt word wrap length limit",
        0,
        74,
        1,
        "A chunk of 75 tokens may end at a comma this many tokens back.",
        element="comma_padding_backtrack",
    ),
    _slider(
        "token_merging_ratio", "token_merging.ratio", "Token merging ratio", 0, 0.9, 0.1, "Faster, less exact; 0: off."
    ),
    _slider(
        "token_merging_ratio_hr",
        "token_merging.second_pass",
        "Token merging ratio for high-res pass",
        0,
        0.9,
        0.1,
        "0: as above.",
        tab="txt2img",
    ),
    _field(
        "pad_cond_uncond",
        "sampling.guidance.pad",
        "Pad prompt/negative prompt",
        "To the same length, to ask both at once.",
    ),
    _field(
        "pad_cond_uncond_v0",
        "sampling.guidance.pad_v0",
        "Pad prompt/negative prompt (v0)",
        "As old versions did for DDIM.",
    ),
    _field(
        "use_old_scheduling",
        "compatibility.old_prompt_editing",
        "Old prompt editing timelines",
        "Numbers in [a:b:0.5] count in each pass alone (before 1.6.0).",
    ),
    _field("use_downcasted_alpha_bar", "compatibility.downcast_alphas", "Downcast alphas_cumprod", "As before 1.8.0."),
    _field("use_old_karras_scheduler_sigmas", "compatibility.old_karras", "Old Karras sigmas", "From 0.1 to 10."),
    _field(
        "enable_quantization",
        "compatibility.whole_timesteps",
        "Whole timesteps",
        "Quantization in k-samplers; as Forge.",
    ),
)
_START = (
    _slider(
        "denoising_strength",
        "start.denoising_strength",
        "Denoising strength",
        0,
        1,
        0.01,
        "0 keeps the picture, 1 makes another one.",
    ),
    _field("resize_mode", "start.resize_mode", "Resize mode"),
    _field(
        "img2img_upscaler",
        "start.upscaler",
        "Upscaler for img2img",
        "Enlarges a picture smaller than the size above.",
        element="upscaler_for_img2img",
    ),
    _slider(
        "noise_multiplier",
        "start.noise_multiplier",
        "Noise multiplier",
        0,
        1.5,
        0.001,
        element="initial_noise_multiplier",
    ),
    _field(
        "color_correction",
        "start.color_correction",
        "Color correction",
        "Give the result the colours of the picture.",
        element="img2img_color_correction",
    ),
    _field(
        "exact_steps",
        "start.exact_steps",
        "Do exactly as many steps as said",
        "Otherwise fewer with less denoising.",
        element="img2img_fix_steps",
    ),
    _field("background", "start.background", "Background of transparent pictures", element="img2img_background_color"),
    _slider("mask_blur", "start.mask.blur", "Mask blur", 0, 64, 1),
    _field("mask_blur_y", "start.mask.blur_y", "Vertical mask blur", "Empty: the same."),
    _field("mask_mode", "start.mask.mode", "Mask mode"),
    _field("masked_content", "start.mask.content", "Masked content", element="inpainting_fill"),
    _field("inpaint_area", "start.mask.area", "Inpaint area", element="inpaint_full_res"),
    _slider(
        "padding", "start.mask.padding", "Only masked padding, pixels", 0, 256, 4, element="inpaint_full_res_padding"
    ),
    _field(
        "mask_round",
        "start.mask.round",
        "Round the mask",
        "In the latent a place is painted anew or not, nothing between.",
    ),
    _field("mask_overlay", "start.mask.overlay", "Lay the original over what is not masked", element="overlay_inpaint"),
    _slider(
        "soft_schedule_bias",
        "start.mask.soft.schedule_bias",
        "Schedule bias",
        0,
        8,
        0.1,
        "Above 1 the original is kept longer.",
    ),
    _slider(
        "soft_preservation",
        "start.mask.soft.preservation_strength",
        "Preservation strength",
        0,
        8,
        0.05,
        "How strongly the original is kept.",
    ),
    _slider(
        "soft_contrast",
        "start.mask.soft.transition_contrast_boost",
        "Transition contrast boost",
        1,
        32,
        0.5,
        "Sharpens where original and new meet.",
    ),
    _slider(
        "soft_mask_influence",
        "start.mask.soft.mask_influence",
        "Mask influence",
        0,
        1,
        0.05,
        "How much the mask counts in the final blend.",
    ),
    _slider(
        "soft_threshold",
        "start.mask.soft.difference_threshold",
        "Difference threshold",
        0,
        8,
        0.25,
        "How different a place must be to be taken from the new picture.",
    ),
    _slider(
        "soft_difference_contrast",
        "start.mask.soft.difference_contrast",
        "Difference contrast",
        0,
        8,
        0.25,
        "How sharply that is decided.",
    ),
)


_MODULES = (_field("modules", "modules", "Modules"),)
"""The panels of all conditioning modules are one widget, which holds the uses of them."""


def _part_of(field: Field) -> Field:
    """The field with the switch of its part, and the tab that its place means."""
    part = next((name for name, (at, *_) in SWITCHES.items() if at != "noise" and field.path.startswith(f"{at}.")), "")
    place = field.path.partition(".")[0]
    tab = {"start": "img2img", "second_pass": "txt2img"}.get(place, "")
    return dataclasses.replace(field, part=field.part or part, tab=field.tab or tab)


TABLE: Mapping[str, Field] = {
    field.name: field
    for field in map(
        _part_of, (*_TOP, *_PROMPTS, *_MAIN, *_SEED, *_HIRES, *_REFINER, *_FACES, *_SAMPLER, *_MORE, *_MODULES, *_START)
    )
}
"""Every field by name."""

WITHOUT_WIDGET: Mapping[str, str] = {
    "start.image": "the canvas holds it",
    "start.mask.image": "the canvas holds it",
    "start.mask.latent": "scripts draw it (outpainting), and API clients send it",
    "start.mask.part.left": "scripts say what of a large sheet the network sees (outpainting)",
    "start.mask.part.top": "as its left edge",
    "start.mask.part.width": "as its left edge",
    "start.mask.part.height": "as its left edge",
    "template.prompt": "a seed's choices stand in the prompt; what it was made of is shown beside the picture",
    "template.negative_prompt": "as the prompt's",
    "template.hires_prompt": "as the prompt's",
    "template.hires_negative_prompt": "as the prompt's",
    "script.name": "the Script list holds it (ui/scripts)",
    "script.options": "the boxes below the Script list hold them, made from the script's options record",
    "script.drawn": "set when the job is queued",
}
"""Leaves of the request without a field of the table, each with the reason."""

TOP = tuple(field.name for field in TABLE.values() if field.tab == "top")
"""The fields on top of the page, which both tabs share."""


def fields_of(tab: str) -> tuple[str, ...]:
    """The names of a tab's own fields and switches, in the order of its events' inputs."""
    own = [field.name for field in TABLE.values() if field.tab in ("", tab)]
    return (*own, *(name for name, (_, _, where, _) in SWITCHES.items() if where in ("", tab)))
