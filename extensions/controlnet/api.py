"""``/controlnet/*``: the lists, the settings and ``detect``, as clients of sd-webui-controlnet's API version 3 ask.

Facts: Mikubill/sd-webui-controlnet ``scripts/api.py``, ``scripts/supported_preprocessor.py``.  Units themselves come
with a generation, in ``alwayson_scripts.ControlNet``.  Runs in the server process: no torch.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, HTTPException

from webui.errors import RequestError
from webui.images.masks import read_mask
from webui.images.pixels import read_pixels
from webui.images.resize import resize
from webui.metadata.files import encode_picture

from .fitting import Levels, at_resolution
from .network_preprocessors import network_preprocessors
from .preprocessors import named, slider_values
from .short_hash import short_hash
from .unit import DEFAULT_RESOLUTION, HIGHEST_RESOLUTION, LOWEST_RESOLUTION, NO_MODEL, NO_MODULE, UNITS, module_named

if TYPE_CHECKING:
    from webui.engine.access import Access
    from webui.preprocessors import Preprocessor

VERSION = 3
ALL = "All"
CONTROL_TYPES = {
    "Blur": ("blur",),
    "Canny": ("canny",),
    "Depth": ("depth",),
    "IP-Adapter": ("ip-adapter", "ip_adapter", "ipadapter"),
    "Inpaint": ("inpaint",),
    "Lineart": ("lineart",),
    "MLSD": ("mlsd",),
    "NormalMap": ("normal",),
    "OpenPose": ("openpose",),
    "Recolor": ("recolor",),
    "Reference": ("reference",),
    "Scribble": ("scribble",),
    "Segmentation": ("seg",),
    "Shuffle": ("shuffle",),
    "Sketch": ("sketch",),
    "SoftEdge": ("softedge", "hed", "pidi"),
    "T2I-Adapter": ("t2i",),
    "Tile": ("tile",),
}
"""What one of each model's words is for each control type.  Where no preprocessor of a type is here, a control picture
can still be brought along."""
_SPACE = re.compile(r"\s+")


def build(access: Access) -> APIRouter:
    """The routes below ``/controlnet``."""
    router = APIRouter()

    @router.get("/version")
    def version() -> dict[str, int]:
        """The version of this contract."""
        return {"version": VERSION}

    @router.get("/settings")
    def settings() -> dict[str, int]:
        """How many units a request may have."""
        return {"control_net_unit_count": UNITS}

    @router.get("/model_list")
    def model_list(update: bool = True) -> dict[str, list[str]]:
        """The model files, each with its short hash."""
        if update:
            access.refresh()
        return {"model_list": models(access)}

    @router.get("/module_list")
    def module_list(alias_names: bool = False) -> dict[str, Any]:
        """The preprocessors and their sliders; ``alias_names`` gives the names that people read."""
        known = {name_of(one, alias_names): one for one in access.preprocessors().values()}
        return {"module_list": list(known), "module_detail": {name: detail(one) for name, one in known.items()}}

    @router.get("/control_types")
    def control_types() -> dict[str, Any]:
        """Which preprocessors and models belong together."""
        return {"control_types": {kind: control_type(kind, access) for kind in (ALL, *CONTROL_TYPES)}}

    @router.post("/detect")
    def detect(
        controlnet_module: Annotated[str, Body()] = NO_MODULE,
        controlnet_input_images: Annotated[list[str] | None, Body()] = None,
        controlnet_processor_res: Annotated[int, Body()] = -1,
        controlnet_threshold_a: Annotated[float, Body()] = -1,
        controlnet_threshold_b: Annotated[float, Body()] = -1,
        controlnet_masks: Annotated[list[str] | None, Body()] = None,
    ) -> dict[str, Any]:
        """The control pictures that a preprocessor makes of pictures in base64."""
        one = preprocessor_named(controlnet_module, access)
        images, masks = controlnet_input_images or [], controlnet_masks or []
        if not images:
            raise HTTPException(422, "No image selected")
        if one.reads_mask and len(masks) != len(images):
            raise HTTPException(422, f"Preprocessor {controlnet_module} requires `controlnet_masks` param")
        numbers = slider_values(one, controlnet_threshold_a, controlnet_threshold_b)
        made = []
        for place, text in enumerate(images):
            pixels = read_pixels(picture_bytes(text))
            mask = read_mask(picture_bytes(masks[place])) if one.reads_mask else None
            made.append(in_base64(detected(one, pixels, mask, controlnet_processor_res, numbers, access)))
        return {"info": "Success", "images": made}

    return router


def models(access: Access) -> list[str]:
    """``name [short hash]`` of each model file, as clients send it back."""
    return [f"{entry.name} [{short_hash(entry.path)}]" for entry in access.models("controlnet")]


def name_of(one: Preprocessor, alias_names: bool) -> str:
    """Upstream's inner name, or the one that people read."""
    inner = next((alias for alias in one.aliases if not alias.startswith("ip-adapter_")), one.name)
    return one.name if alias_names else inner


def detail(one: Preprocessor) -> dict[str, Any]:
    """What upstream tells of a preprocessor."""
    sliders = [
        {"name": one.label, "value": one.default, "min": one.low, "max": one.high, "step": one.step}
        for one in one.sliders[:2]
    ]
    resolution = {
        "name": "Resolution",
        "value": DEFAULT_RESOLUTION,
        "min": LOWEST_RESOLUTION,
        "max": HIGHEST_RESOLUTION,
        "step": 8,
    }
    return {"model_free": not one.needs_model, "sliders": [resolution, *sliders] if one.scaled else sliders}


def control_type(kind: str, access: Access) -> dict[str, Any]:
    """The preprocessors and models of a control type, and which of each is chosen first."""
    known, files = list(access.preprocessors().values()), models(access)
    if kind == ALL:
        return _listed(known, files, NO_MODULE, NO_MODEL)
    suitable = [one for one in known if kind in one.tags or one.name == NO_MODULE]
    words = CONTROL_TYPES[kind]
    fitting = [name for name in files if any(word in name.casefold() for word in words)]
    first = next((one.name for one in suitable if one.name != NO_MODULE), NO_MODULE)
    return _listed(suitable, fitting or files, first, fitting[0] if fitting else NO_MODEL)


def _listed(known: Iterable[Preprocessor], files: Sequence[str], option: str, model: str) -> dict[str, Any]:
    names = sorted((one.name for one in known), key=lambda name: name != NO_MODULE)
    return {
        "module_list": names,
        "model_list": [NO_MODEL, *files],
        "default_option": option,
        "default_model": model,
    }


def preprocessor_named(name: str, access: Access) -> Preprocessor:
    """The preprocessor of any of its names.  Raises 422 as upstream."""
    known = access.preprocessors()
    found = known.get(module_named(name, named(known.values())))
    if found is None:
        raise HTTPException(422, _why_missing(name))
    if "IP-Adapter" in found.tags:
        raise HTTPException(422, "Module not supported")
    return found


def _why_missing(name: str) -> str:
    """Upstream's words, or the sentence about the file that a preprocessor needs and has not got."""
    own = {one.name: one for one in network_preprocessors()}
    if missing := own.get(module_named(name, named(own.values()))):
        try:
            missing.file(())
        except RequestError as error:
            return str(error)
    return "Module not available"


def detected(
    one: Preprocessor, pixels: Levels, mask: Levels | None, resolution: int, numbers: dict[str, float], access: Access
) -> Levels:
    """The control picture of one picture; what is painted anew is black."""
    if one.scaled:
        known = LOWEST_RESOLUTION <= resolution <= HIGHEST_RESOLUTION
        pixels = at_resolution(pixels, resolution if known else DEFAULT_RESOLUTION)
    made = access.preprocess(one.name, pixels, numbers).copy()
    if mask is not None:
        made[resize(mask, made.shape[1], made.shape[0]) > 127] = 0
    return made


def picture_bytes(text: str) -> bytes:
    """The file that base64 or a data: URI stands for.  Raises 422 for what is neither."""
    data = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(_SPACE.sub("", data), validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(422, "Invalid encoded image") from error


def in_base64(pixels: Levels) -> str:
    """A PNG file as answers carry it."""
    return base64.b64encode(encode_picture(pixels, ".png", {})).decode()
