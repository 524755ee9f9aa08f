"""What a picture's text leaves out, taken from the recipe in the same file.

AUTOMATIC1111 has options that change pixels and that it does not write (resize mode, colour correction, how far a comma
reaches back, ...); our texts leave them out as well, so that both say the same.  The recipe has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from webui.errors import RequestError
from webui.metadata.keys import changed, field
from webui.records import build, plain
from webui.request import GenerationRequest, Mask, StartImage

UNWRITTEN = (
    "comma_backtrack",
    "modules",
    "compatibility.old_karras",
    "compatibility.whole_timesteps",
    "sampling.options.unipc_order",
    "second_pass.reuse_conditioning",
    "face_restoration.visibility",
    "face_restoration.weight",
)
"""The fields that no text has, by their dotted paths; of a start image only its numbers are written."""


def completed(told: GenerationRequest, start: Mapping[str, Any], recorded: GenerationRequest) -> GenerationRequest:
    """The request that a text told, with what no text has as it was ``recorded``.

    ``start`` are the numbers that the text told of a start image and its mask.
    """
    for path in UNWRITTEN:
        parent = path.rpartition(".")[0]
        if not parent or (field(told, parent) is not None and field(recorded, parent) is not None):
            told = changed(told, path, field(recorded, path))
    if recorded.start is None or told.second_pass is not None or not start:
        return told
    return replace(told, start=_started(recorded.start, start))


def _started(recorded: StartImage, told: Mapping[str, Any]) -> StartImage:
    """The recorded start image with the numbers that were told; without them where they cannot be."""
    mask = dict(told.get("mask") or {})
    soft = mask.pop("soft", None)
    numbers = {name: value for name, value in told.items() if name != "mask"}
    try:
        start: StartImage = build(StartImage, {**plain(recorded), **numbers}, "start")
        if recorded.mask is None:
            return start
        blur_y = recorded.mask.blur_y
        if blur_y not in (None, recorded.mask.blur):
            mask["blur"] = recorded.mask.blur  # two different ones are not written
        if mask.get("area") == recorded.mask.area.value == "Whole picture":
            mask["padding"] = recorded.mask.padding  # it counts, and is written, only with the masked part alone
        values = {**plain(recorded.mask), **mask, "soft": soft if mask else None}
        return replace(start, mask=build(Mask, values, "mask"))
    except RequestError:
        return recorded
