"""The page's field values <-> :class:`GenerationRequest`: pure functions of plain values, without gradio.

A *field value* is what a widget holds: ``seed`` is -1 for random, ``eta`` is None for the sampler's own.  What stands
where in the request says the table in ``fields``.  Called by ``generation`` and ``restoring``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from webui.errors import RequestError
from webui.records import shown
from webui.request import GenerationRequest
from webui.ui.fields import SWITCHES, TABLE, TOP, Field, fields_of

if TYPE_CHECKING:
    from webui.metadata.reading import ReadBack

FIELDS = tuple(name for name in (*TOP, *fields_of("txt2img")) if name != "checkpoint")
"""What txt2img asks, beside the checkpoint."""
START_FIELDS = tuple(name for name in fields_of("img2img") if name not in FIELDS)
"""The further fields of img2img; those of the mask count only with one."""
RECOMMENDED = ("width", "height", "sampler", "schedule", "cfg_scale", "steps")
"""The fields that choosing a checkpoint may set."""

DEFAULTS: Mapping[str, Any] = {
    **{name: field.default for name, field in TABLE.items() if name != "checkpoint"},
    **dict.fromkeys(SWITCHES, False),
}
"""What a fresh page shows, the values of AUTOMATIC1111."""

_START, _MASK, _SOFT = "start", "start.mask", "start.mask.soft"
_STATED_BY = {
    "Steps": ("steps",),
    "Sampler": ("sampler", "schedule"),
    "CFG scale": ("cfg_scale",),
    "Seed": ("seed",),
    "Size": ("width", "height"),
    "Batch size": ("batch_size",),
    "Model": ("checkpoint",),
    "Model hash": ("checkpoint",),
}
"""What a text leaves as it is on the page unless it has one of these keys: no value of these is more usual than others.
All else that a text does not say means AUTOMATIC1111's default, so that nothing of an earlier picture stays."""
_KEPT = {"batch_count"} | {name for names in _STATED_BY.values() for name in names}
_KEPT_START = {
    "denoising_strength",
    "resize_mode",
    "img2img_upscaler",
    "color_correction",
    "exact_steps",
    "background",
    "mask_blur_y",
    "mask_round",
    "mask_overlay",
}
"""Of img2img's fields, those that a text which does not say them leaves alone."""


def request_from_values(values: Mapping[str, Any]) -> GenerationRequest:
    """The request that the field values ask for.

    ``values`` may hold any name of the table and of its switches; what is not there is as on a fresh page.  With an
    ``image`` (SHA-256 of a stored picture) it starts from that; with a ``mask`` it is inpainting.  Raises RequestError
    with one sentence when a field is empty or out of range.
    """
    on = _parts_on(values)
    plain: dict[str, Any] = {}
    for part in sorted(on):
        _put(plain, part, {})
    if _START in on:
        _put(plain, "start.image", values["image"])
    if _MASK in on:
        _put(plain, "start.mask.image", values["mask"])
    for name, field in TABLE.items():
        if name in values and _counts(field, values, on):
            _put(plain, field.path, _asked(field, values[name]))
    return GenerationRequest.from_dict(plain)


def values_from_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """The field values that ask for ``request`` (plain values as in ``GenerationRequest.to_dict``).

    The inverse of :func:`request_from_values`, the leaves without a widget apart; ``image`` and ``mask`` are there when
    the request has them, and the fields of img2img keep out when it has no start image.  Parts that are off (hires fix,
    refiner, ...) have the values of a fresh page.
    """
    plain = GenerationRequest.from_dict(request).to_dict()
    values = {
        name: _shown(field, _at(plain, field.path)) if _has(plain, field.path) else field.default
        for name, field in TABLE.items()
        if _belongs(plain, field.path)
    }
    for name, (part, _, _, _) in SWITCHES.items():
        if _belongs(plain, f"{part}."):
            values[name] = _has(plain, f"{part}.")
    values["subseed_show"] = any(
        values[name] != field.default for name, field in TABLE.items() if field.part == "subseed_show"
    )
    for name, path in (("image", "start.image"), ("mask", "start.mask.image")):
        if _has(plain, path):
            values[name] = _at(plain, path)
    return values


def stated_values(back: ReadBack, keys: Collection[str] | None) -> dict[str, Any]:
    """The field values to show for what a text says.

    ``keys`` are the keys of the text's pairs; None when everything was recorded.  A text without pairs states its
    prompts alone; with pairs, what it leaves out becomes the default of a fresh page, a few fields apart that stay.
    """
    values = values_from_request(back.request.to_dict())
    if keys is None:
        return values
    if not keys:
        return {name: values[name] for name in ("prompt", "negative_prompt")}
    stated = {field for key in keys for field in _STATED_BY.get(key, ())}
    values = {name: value for name, value in values.items() if name in stated or name not in _KEPT}
    return {**values, **_start_values(back.start)}


def _start_values(start: Mapping[str, Any]) -> dict[str, Any]:
    """img2img's field values for the numbers of a start image that a text says."""
    plain = {_START: start}
    said = {
        name: _shown(field, _at(plain, field.path))
        for name, field in TABLE.items()
        if field.path.startswith("start.") and _has(plain, field.path)
    }
    usual = {name: DEFAULTS[name] for name in START_FIELDS if name not in _KEPT_START}
    return {**usual, **said, "soft_inpainting": _has(plain, f"{_SOFT}.")}


def homeless(request: GenerationRequest, tab: str) -> list[str]:
    """Words for what the request asks and the tab ("txt2img" or "img2img") has no field for."""
    words = []
    if request.second_pass is not None and tab == "img2img":
        words.append("Hires. fix (it belongs to txt2img)")
    if request.start is not None and tab == "txt2img":
        words.append("the start image (it belongs to img2img)")
    mask = request.start.mask if request.start else None
    if mask is not None and (mask.latent or mask.part):
        words.append("the masks of outpainting (its script draws them)")
    words += [f"the script {request.script.name}"] if request.script else []
    return words


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


def _parts_on(values: Mapping[str, Any]) -> set[str]:
    """The optional records of the request that the values ask for."""
    on = {part for name, (part, _, _, _) in SWITCHES.items() if values.get(name) and part not in ("noise", _SOFT)}
    if values.get("image"):
        on.add(_START)
        if values.get("mask"):
            on.add(_MASK)
            if values.get("soft_inpainting"):
                on.add(_SOFT)
    return on


def _counts(field: Field, values: Mapping[str, Any], on: Collection[str]) -> bool:
    """Whether the field's part of the request is asked for."""
    if field.part == "subseed_show":
        return bool(values.get("subseed_show"))
    parts = [_START, _MASK, *(part for part, *_ in SWITCHES.values() if part != "noise")]
    return all(part in on for part in parts if field.path.startswith(f"{part}."))


def _asked(field: Field, value: Any) -> Any:
    """The request's plain value for a widget's."""
    number = field.leaf.kind in (int, float)
    if field.leaf.optional and (value in (field.none, None, "") or (number and str(value).strip() == "")):
        return None
    if isinstance(field.leaf.kind, type) and issubclass(field.leaf.kind, StrEnum):
        return value
    if field.leaf.default is None and not field.leaf.optional and not value:
        part = SWITCHES[field.part][1] if field.part else field.label
        raise RequestError(f"{part} is on, and no {field.label[0].lower()}{field.label[1:]} is chosen; choose one.")
    if field.leaf.kind is int:
        return _whole(field, value)
    if field.leaf.kind is float:
        return _number(field, value)
    if field.leaf.kind is bool:
        return bool(value)
    return list(value or ()) if isinstance(field.leaf.default, tuple) else (value or "")


def _shown(field: Field, value: Any) -> Any:
    """The widget's value for the request's plain one; a number that may be missing is text."""
    if value is None:
        return field.none
    return str(value) if field.leaf.kind in (int, float) and field.none == "" and field.leaf.optional else value


def _number(field: Field, value: Any) -> float:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise RequestError(f"{field.label} is {shown(value)}; type a number.") from None
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"{field.label} is empty; type a number.")
    return float(value)


def _whole(field: Field, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = _number(field, value)
    if not number.is_integer():
        raise RequestError(f"{field.label} is {number:g}; it must be a whole number.")
    return int(number)


def _put(plain: dict[str, Any], path: str, value: Any) -> None:
    *records, last = path.split(".")
    for name in records:
        plain = plain.setdefault(name, {})
    plain[last] = value


def _at(plain: Mapping[str, Any], path: str) -> Any:
    value: Any = plain
    for name in path.split("."):
        value = value[name]
    return value


def _has(plain: Mapping[str, Any], path: str) -> bool:
    """Whether every record on the way to the leaf is there; a path that ends in a dot names a record."""
    *records, leaf = path.split(".")
    value: Any = plain
    for name in records:
        value = value.get(name)
        if value is None:
            return False
    return not leaf or leaf in value


def _belongs(plain: Mapping[str, Any], path: str) -> bool:
    """Whether a request of this kind says something about the leaf: start image and mask only when it has them."""
    return not any(path.startswith(f"{part}.") and not _has(plain, f"{part}.") for part in (_START, _MASK))
