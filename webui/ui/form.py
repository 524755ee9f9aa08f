"""The page's fields <-> :class:`GenerationRequest`: pure functions of plain values, without gradio.

A *field value* is what a widget holds: ``seed`` is -1 for random, ``eta`` is None for the sampler's own.  The names of
the fields are those of the request's leaves.  Called by ``generation`` and ``inspection``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from webui.errors import RequestError
from webui.request import (
    GenerationRequest,
    InpaintArea,
    Mask,
    MaskedContent,
    MaskMode,
    ResizeMode,
    Sampling,
    Size,
    StartImage,
)

if TYPE_CHECKING:
    from webui.metadata.reading import ReadBack

FIELDS = (
    "prompt",
    "negative_prompt",
    "sampler",
    "schedule",
    "steps",
    "cfg_scale",
    "seed",
    "width",
    "height",
    "batch_count",
    "batch_size",
    "clip_skip",
    "eta",
)
"""The fields that txt2img and img2img have in common."""
START_FIELDS = (
    "denoising_strength",
    "resize_mode",
    "mask_blur",
    "mask_mode",
    "masked_content",
    "inpaint_area",
    "padding",
)
"""The further fields of img2img; those after ``resize_mode`` count only with a mask."""
RECOMMENDED = ("width", "height", "sampler", "schedule", "cfg_scale", "steps")
"""The fields that choosing a checkpoint may set."""

DEFAULTS: Mapping[str, Any] = {
    "prompt": "",
    "negative_prompt": "",
    "sampler": "DPM++ 2M",
    "schedule": "Automatic",
    "steps": 20,
    "cfg_scale": 7.0,
    "seed": -1,
    "width": 512,
    "height": 512,
    "batch_count": 1,
    "batch_size": 1,
    "clip_skip": 1,
    "eta": None,
    "denoising_strength": 0.75,
    "resize_mode": ResizeMode.JUST_RESIZE.value,
    "mask_blur": 4,
    "mask_mode": MaskMode.MASKED.value,
    "masked_content": MaskedContent.ORIGINAL.value,
    "inpaint_area": InpaintArea.WHOLE.value,
    "padding": 32,
}
"""What a fresh page shows, the values of AUTOMATIC1111."""

_LABELS = {
    "steps": "Sampling steps",
    "cfg_scale": "CFG Scale",
    "seed": "Seed",
    "width": "Width",
    "height": "Height",
    "batch_count": "Batch count",
    "batch_size": "Batch size",
    "clip_skip": "Clip skip",
    "eta": "Eta",
    "denoising_strength": "Denoising strength",
    "mask_blur": "Mask blur",
    "padding": "Only masked padding",
}


_STATED_BY = {
    "Steps": ("steps",),
    "Sampler": ("sampler", "schedule"),
    "Schedule type": ("schedule",),
    "CFG scale": ("cfg_scale",),
    "Seed": ("seed",),
    "Size": ("width", "height"),
    "Batch size": ("batch_size",),
    "Model": ("checkpoint",),
    "Model hash": ("checkpoint",),
}
"""The fields that a pair of a ``parameters`` text speaks of, by its key."""
_MASK_FIELDS = {
    "blur": "mask_blur",
    "mode": "mask_mode",
    "content": "masked_content",
    "area": "inpaint_area",
    "padding": "padding",
}


def request_from_values(values: Mapping[str, Any]) -> GenerationRequest:
    """The request that the fields ask for.

    ``values`` holds every name of ``FIELDS`` and ``checkpoint`` (a name, or None or "" for the default one).  With an
    ``image`` (SHA-256 of a stored picture) it also holds ``START_FIELDS``; with a ``mask`` it is inpainting.
    Raises RequestError with one sentence when a field is empty or out of range.
    """
    seed = _whole(values, "seed")
    return GenerationRequest(
        prompt=values["prompt"] or "",
        negative_prompt=values["negative_prompt"] or "",
        size=Size(width=_whole(values, "width"), height=_whole(values, "height")),
        sampling=Sampling(
            sampler=values["sampler"],
            schedule=values["schedule"],
            steps=_whole(values, "steps"),
            cfg_scale=_number(values, "cfg_scale"),
            eta=None if values["eta"] is None else _number(values, "eta"),
        ),
        seed=None if seed == -1 else seed,
        batch_size=_whole(values, "batch_size"),
        batch_count=_whole(values, "batch_count"),
        clip_skip=_whole(values, "clip_skip"),
        checkpoint=values.get("checkpoint") or None,
        start=_start(values) if values.get("image") else None,
    )


def values_from_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """The field values that ask for ``request`` (plain values as in ``GenerationRequest.to_dict``).

    The inverse of :func:`request_from_values`, conditioning modules apart; ``image`` and ``mask`` are there when the
    request has them, and the fields of img2img keep out when it has no start image.
    """
    checked = GenerationRequest.from_dict(request)
    values: dict[str, Any] = {
        "prompt": checked.prompt,
        "negative_prompt": checked.negative_prompt,
        "sampler": checked.sampling.sampler,
        "schedule": checked.sampling.schedule,
        "steps": checked.sampling.steps,
        "cfg_scale": checked.sampling.cfg_scale,
        "seed": -1 if checked.seed is None else checked.seed,
        "width": checked.size.width,
        "height": checked.size.height,
        "batch_count": checked.batch_count,
        "batch_size": checked.batch_size,
        "clip_skip": checked.clip_skip,
        "eta": checked.sampling.eta,
        "checkpoint": checked.checkpoint,
    }
    if (start := checked.start) is not None:
        values |= {
            "image": start.image,
            "denoising_strength": start.denoising_strength,
            "resize_mode": start.resize_mode.value,
        }
        if (mask := start.mask) is not None:
            values |= {
                "mask": mask.image,
                "mask_blur": mask.blur,
                "mask_mode": mask.mode.value,
                "masked_content": mask.content.value,
                "inpaint_area": mask.area.value,
                "padding": mask.padding,
            }
    return values


def stated_values(back: ReadBack, keys: Collection[str] | None) -> dict[str, Any]:
    """The field values that a picture's text states.

    ``keys`` are the keys of the text's pairs; None when everything was recorded.  What the keys leave out is left out
    here; a text without pairs states its prompts alone.
    """
    values = values_from_request(back.request.to_dict())
    if keys is not None:
        stated = {field for key in keys for field in _STATED_BY.get(key, ())}
        always = {"prompt", "negative_prompt"} | ({"clip_skip", "eta"} if keys else set())
        values = {name: value for name, value in values.items() if name in stated | always}
    start = dict(back.start)
    mask = dict(start.pop("mask", None) or {})
    return {**values, **start, **{_MASK_FIELDS[name]: value for name, value in mask.items() if name in _MASK_FIELDS}}


def recommendation(native_size: int, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What the page sets for a checkpoint: its native size and its own defaults, else those of a fresh page."""
    general = {name: DEFAULTS[name] for name in RECOMMENDED}
    own = {name: value for name, value in defaults.items() if name in RECOMMENDED}
    return {**general, "width": native_size, "height": native_size, **own}


def follow_recommendation(
    current: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields to change when the recommendation goes from ``before`` to ``after``: those that nobody had changed."""
    return {
        name: after[name]
        for name in RECOMMENDED
        if name in after and current[name] == before.get(name) and current[name] != after[name]
    }


def _start(values: Mapping[str, Any]) -> StartImage:
    mask = None
    if values.get("mask"):
        mask = Mask(
            image=values["mask"],
            blur=_whole(values, "mask_blur"),
            mode=MaskMode(values["mask_mode"]),
            content=MaskedContent(values["masked_content"]),
            area=InpaintArea(values["inpaint_area"]),
            padding=_whole(values, "padding"),
        )
    return StartImage(
        image=values["image"],
        denoising_strength=_number(values, "denoising_strength"),
        resize_mode=ResizeMode(values["resize_mode"]),
        mask=mask,
    )


def _number(values: Mapping[str, Any], name: str) -> float:
    value = values[name]
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"{_LABELS[name]} is empty; type a number.")
    return float(value)


def _whole(values: Mapping[str, Any], name: str) -> int:
    value = values[name]
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = _number(values, name)
    if not number.is_integer():
        raise RequestError(f"{_LABELS[name]} is {number:g}; it must be a whole number.")
    return int(number)
