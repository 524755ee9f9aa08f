"""``ControlNet N: "Module: ..., Model: ..., ..."``: a unit in a picture's text, written and read as upstream does.

Facts: Mikubill/sd-webui-controlnet ``internal_controlnet/args.py`` (serialize, parse) and, for older pictures,
``scripts/controlnet.py`` ("preprocessor params: (512, 100, 200)").  No torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from webui.option_boxes import all_boxes
from webui.preprocessors import Preprocessor

from .preprocessors import slider_values
from .unit import DEFAULT, DEFAULT_RESOLUTION, NAME, NO_MODEL, Unit, model_named, module_named, resolution_of

WITHOUT_SLIDER = 0.5
"""What upstream writes for a slider that a preprocessor does not have."""
WRITTEN = (
    "module",
    "model",
    "weight",
    "resize_mode",
    "processor_res",
    "threshold_a",
    "threshold_b",
    "guidance_start",
    "guidance_end",
    "pixel_perfect",
    "control_mode",
)
"""Upstream's fields in its order; further ones are written where they are not the default."""
FURTHER = ("hr_option", "inpaint_crop_input_image", "clip_vision")
_KEY = re.compile(rf"{NAME} (\d+)")
_PAIR = re.compile(r"\s*([^:,]+):\s*(\([^)]*\)|[^,]*)(?:,|$)")
_OLD_KEYS = {
    "preprocessor": "module",
    "model": "model",
    "weight": "weight",
    "resize mode": "resize_mode",
    "pixel perfect": "pixel_perfect",
    "control mode": "control_mode",
}


def write(unit: Unit, number: int, preprocessor: Preprocessor | None, short_hash: str = "") -> dict[str, str]:
    """The pair of a unit; ``number`` counts from 0, ``short_hash`` is upstream's hash of the model file, if known."""
    values: dict[str, Any] = {name: getattr(unit, name) for name in WRITTEN}
    values["module"] = unit.preprocessor
    values["model"] = f"{unit.model} [{short_hash}]" if unit.model and short_hash else unit.model or NO_MODEL
    values["processor_res"] = unit.processor_res if unit.processor_res != DEFAULT else DEFAULT_RESOLUTION
    sliders = list(slider_values(preprocessor, unit.threshold_a, unit.threshold_b).values()) if preprocessor else []
    for place, name in enumerate(("threshold_a", "threshold_b")):
        values[name] = float(sliders[place]) if place < len(sliders) else WITHOUT_SLIDER
    defaults = {box.name: box.default for box in all_boxes(Unit)}
    values |= {name: getattr(unit, name) for name in FURTHER if getattr(unit, name) != defaults[name]}
    told = {_words(name): str(value) for name, value in values.items()}
    if any("," in text or ":" in text for text in told.values()):  # upstream writes nothing then
        told = {key: re.sub("[,:]", " ", text) for key, text in told.items()}
    return {f"{NAME} {number}": ", ".join(f"{key}: {text}" for key, text in told.items())}


def read(fields: dict[str, str], known: Mapping[str, str]) -> list[dict[str, Any]]:
    """The units that a text's pairs tell, in their order; their pairs are taken out of ``fields``."""
    numbered = sorted((int(match[1]), key) for key in fields if (match := _KEY.fullmatch(key)))
    return [_options(fields.pop(key), known) for _, key in numbered]


def _options(text: str, known: Mapping[str, str]) -> dict[str, Any]:
    said = {key.strip(): value.strip() for key, value in _PAIR.findall(text)}
    values = _old(said) if "preprocessor" in said else {_field(key): value for key, value in said.items()}
    boxes = {box.name: box for box in all_boxes(Unit)}
    options: dict[str, Any] = {}
    for name, value in values.items():
        if name in boxes and name in (*WRITTEN, *FURTHER):
            options[name] = _parsed(value, boxes[name].default)
    options["module"] = module_named(str(options.get("module", "")), known)
    options["model"] = model_named(str(options.get("model", "")))
    options["processor_res"] = resolution_of(options.get("processor_res", DEFAULT))
    return options


def _old(said: Mapping[str, str]) -> dict[str, str]:
    """A unit as it was written before 1.1.3, under the names of today."""
    values = {_OLD_KEYS[key]: value for key, value in said.items() if key in _OLD_KEYS}
    tuples: dict[str, tuple[str, ...]] = {
        "starting/ending": ("guidance_start", "guidance_end"),
        "preprocessor params": ("processor_res", "threshold_a", "threshold_b"),
    }
    for key, names in tuples.items():
        numbers = said.get(key, "").strip("()").split(",")
        values |= {name: number.strip() for name, number in zip(names, numbers, strict=False) if number.strip()}
    return values


def _parsed(value: str, default: Any) -> Any:
    """A value as the field takes it; one that it cannot take is the default."""
    if isinstance(default, bool):
        return value == "True"
    if isinstance(default, int | float):
        try:
            return type(default)(float(value)) if isinstance(default, int) else float(value)
        except ValueError:
            return default
    return value


def _words(name: str) -> str:
    return " ".join(word.capitalize() for word in name.split("_"))


def _field(words: str) -> str:
    return "_".join(words.lower().split(" "))
