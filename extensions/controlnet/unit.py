"""One unit as people ask for it: the options record, and what other programs' words for it mean.

Field names, defaults and choices are those of Mikubill/sd-webui-controlnet (``internal_controlnet/args.py``), so that
its clients' units are units here.  No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from webui.errors import RequestError
from webui.option_boxes import Kind, option

from .fitting import ResizeMode

NAME = "ControlNet"
UNITS = 3
NO_MODULE = "none"
NO_MODEL = "None"
DEFAULT = -1
"""Of a number that a preprocessor reads: the preprocessor's own default."""
DEFAULT_RESOLUTION = 512
LOWEST_RESOLUTION, HIGHEST_RESOLUTION = 64, 2048


class ControlMode(StrEnum):
    """Which of the two wins where prompt and control picture disagree."""

    BALANCED = "Balanced"
    PROMPT = "My prompt is more important"
    CONTROL = "ControlNet is more important"


class HiresOption(StrEnum):
    """In which of two passes the unit works; a picture of one pass is not asked."""

    BOTH = "Both"
    LOW = "Low res only"
    HIGH = "High res only"


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What one unit is asked to do.

    ``image`` and ``mask`` are stored pictures by their SHA-256; without an image the start image of img2img is taken.
    ``processor_res``, ``threshold_a`` and ``threshold_b`` are the preprocessor's resolution and its first two sliders;
    a number beyond their range means their default.  ``guidance_start`` and ``guidance_end`` are shares of the steps.
    ``advanced_weighting`` replaces ``weight`` layer by layer, in the order of the network's layers.
    """

    image: str = option("", "Control picture", kind=Kind.PICTURE, hint="Empty, in img2img: the start image.")
    mask: str = option("", "Mask", kind=Kind.MASK, of="image", hint="For inpainting: what is to be painted anew.")
    module: str = option(NO_MODULE, "Preprocessor", kind=Kind.PREPROCESSOR, of="image")
    model: str = option("", "Model", kind=Kind.MODEL, of="controlnet", beside=True)
    weight: float = option(1.0, "Weight", low=0, high=2, step=0.05)
    guidance_start: float = option(0.0, "Starting step", low=0, high=1, step=0.01)
    guidance_end: float = option(1.0, "Ending step", low=0, high=1, step=0.01, beside=True)
    pixel_perfect: bool = option(False, "Pixel perfect", hint="The preprocessor's resolution follows the size.")
    processor_res: int = option(DEFAULT, "Preprocessor resolution", low=DEFAULT, high=HIGHEST_RESOLUTION, step=1)
    threshold_a: float = option(-1.0, "Preprocessor: first number", hint="-1: its default.")
    threshold_b: float = option(-1.0, "Preprocessor: second number", beside=True)
    control_mode: ControlMode = option(ControlMode.BALANCED, "Control mode")  # noqa: RUF009 (an enum's member is immutable)
    resize_mode: ResizeMode = option(ResizeMode.CROP, "Resize mode")  # noqa: RUF009
    hr_option: HiresOption = option(HiresOption.BOTH, "Second pass")  # noqa: RUF009
    effective_region_mask: str = option("", "Effective region", kind=Kind.MASK, hint="Empty: everywhere.")
    clip_vision: str = option(
        "", "CLIP vision", kind=Kind.MODEL, of="clip_vision", hint="For IP-Adapter; empty: the one that fits."
    )
    inpaint_crop_input_image: bool = option(True, "Crop to the masked part", shown=False)
    advanced_weighting: tuple[float, ...] = option((), "Weight of each layer", shown=False)

    def __post_init__(self) -> None:
        if self.guidance_start > self.guidance_end:
            raise RequestError(
                f"{NAME}: the starting step {self.guidance_start:g} lies behind the ending step {self.guidance_end:g}."
            )

    @property
    def preprocessor(self) -> str:
        """The name of its preprocessor."""
        return self.module or NO_MODULE


_ALIASES = {"input_image": "image", "guidance": "guidance_end", "mask_image": "mask"}
_RESIZE_ALIASES = {
    "Inner Fit (Scale to Fit)": ResizeMode.CROP,
    "Scale to Fit (Inner Fit)": ResizeMode.CROP,
    "Outer Fit (Shrink to Fit)": ResizeMode.FILL,
    "Envelope (Outer Fit)": ResizeMode.FILL,
}
_KEPT = (
    "weight",
    "guidance_start",
    "guidance_end",
    "pixel_perfect",
    "hr_option",
    "effective_region_mask",
    "inpaint_crop_input_image",
    "clip_vision",
)
"""Fields that mean the same in a client's unit."""


def units_of(args: Sequence[Any], known: Mapping[str, str]) -> list[dict[str, Any]]:
    """The options of the enabled units among the arguments of ``alwayson_scripts.ControlNet``.

    ``known`` is the name of each preprocessor by everything it is called.  A unit that does not say whether it is
    enabled is, as in Forge and in sd-webui-controlnet up to 1.1.440.  Raises RequestError.
    """
    return [options_of(unit, known) for unit in args if unit is not None and _is_enabled(unit)]


def _is_enabled(unit: Any) -> bool:
    if not isinstance(unit, Mapping):
        raise RequestError(f"{NAME}: each unit must be an object with fields such as image, module and model.")
    return bool(unit.get("enabled", True))


def options_of(unit: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """The options of one unit as clients send it: old names and numbers for choices are taken, unknown keys ignored."""
    said = {_ALIASES.get(key, key): value for key, value in unit.items() if value is not None}
    if said.get("ipadapter_input"):
        raise RequestError(f"{NAME}: ipadapter_input is not taken; send the picture itself as image.")
    options = {key: said[key] for key in _KEPT if key in said}
    options |= _pictures(said)
    options["module"] = module_named(str(said.get("module", NO_MODULE)), known)
    options["model"] = model_named(str(said.get("model", NO_MODEL)))
    options["processor_res"] = resolution_of(said.get("processor_res", DEFAULT))
    options |= {key: said[key] for key in ("threshold_a", "threshold_b") if key in said}
    if "resize_mode" in said:
        options["resize_mode"] = _choice(said["resize_mode"], ResizeMode, _RESIZE_ALIASES)
    if "control_mode" in said:
        options["control_mode"] = _choice(said["control_mode"], ControlMode, {})
    if said.get("advanced_weighting"):
        options["advanced_weighting"] = said["advanced_weighting"]
    return options


def module_named(name: str, known: Mapping[str, str]) -> str:
    """The preprocessor's name here for any of its names; one that nobody knows stays, and is refused later."""
    if name.casefold() in ("", "none", "null"):
        return NO_MODULE
    return known.get(name.casefold(), name)


def model_named(name: str) -> str:
    """A model's name without the short hash that upstream shows behind it; empty for none."""
    bare = name.rpartition(" [")[0] if name.endswith("]") else name
    return "" if bare.casefold() in ("", "none") else bare


def _pictures(said: Mapping[str, Any]) -> dict[str, str]:
    """Picture and mask, which clients send as texts, in an object {image, mask} or as a pair."""
    image: Any = said.get("image")
    mask: Any = said.get("mask")
    if isinstance(image, list | tuple):
        if len(image) == 1 and isinstance(image[0], Mapping):
            image = image[0]
        elif len(image) == 2 and all(isinstance(one, str) for one in image):
            image = {"image": image[0], "mask": image[1]}
        else:
            raise RequestError(f"{NAME}: a unit takes one image, or an image and its mask.")
    if isinstance(image, Mapping):
        mask = image.get("mask") or mask
        image = image.get("image")
    found = {"image": image, "mask": mask}
    return {name: value for name, value in found.items() if value}


def resolution_of(value: Any) -> Any:
    """The resolution; what no slider can have is the default, as upstream."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and LOWEST_RESOLUTION <= value <= HIGHEST_RESOLUTION else DEFAULT


def _choice(value: Any, kind: type[StrEnum], aliases: Mapping[str, StrEnum]) -> Any:
    """A choice by its words, its old words or its number; what is none of these is refused later."""
    members = list(kind)
    if isinstance(value, int) and not isinstance(value, bool):
        return members[value].value if 0 <= value < len(members) else members[0].value
    return aliases[value].value if value in aliases else value
