"""Draw Things: a JSON object as Exif comment, or in the XMP packet of a PNG (``exif:UserComment``)."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from webui.metadata.foreign import Told, number, parsed, record, stem, words

_XMP = "XML:com.adobe.xmp"
_COMMENT = re.compile(r"<rdf:li[^>]{0,200}>(\{[^<]*\})</rdf:li>")
_KNOWN = frozenset({"c", "uc", "steps", "scale", "seed", "size", "sampler", "model", "strength", "lora", "v2"})


def read(texts: Mapping[str, str]) -> Told | None:
    """What a picture of Draw Things tells; None for another one."""
    found = _COMMENT.search(texts.get(_XMP, "")[:1_000_000])
    inside = html.unescape(found[1]) if found else None
    data = next((one for one in (parsed(inside), parsed(texts.get("parameters"))) if _is_ours(one)), None)
    if data is None:
        return None
    told = Told("Draw Things", words(data.get("c")) + _loras(data.get("lora")), words(data.get("uc")))
    told.put("Steps", data.get("steps"))
    told.put("CFG scale", data.get("scale"))
    told.put("Seed", data.get("seed"))
    told.put("Size", data.get("size"))
    _put_sampler(told, words(data.get("sampler")))
    told.put("Model", stem(data.get("model")))
    if (strength := number(data.get("strength"))) is not None and strength < 1:
        told.put("Denoising strength", strength)
    told.leave_others(data, _KNOWN)
    return told


def _is_ours(data: Any) -> bool:
    return isinstance(data, dict) and {"c", "uc", "sampler", "size"} <= data.keys()


def _put_sampler(told: Told, name: str) -> None:
    """Names as AUTOMATIC1111's old combined ones, but "Euler A", "DPM++ SDE Karras", "... AYS", "... Trailing"."""
    if not name:
        return
    for ending, schedule in ((" Karras", "Karras"), (" AYS", "Align Your Steps"), (" Trailing", "Automatic")):
        if name.endswith(ending):
            told.fields["Schedule type"] = schedule
            name = name.removesuffix(ending)
    told.fields.setdefault("Schedule type", "Automatic")
    told.fields["Sampler"] = {"Euler A": "Euler a", "Euler Ancestral": "Euler a"}.get(name, name)


def _loras(loras: Any) -> str:
    tags = ""
    for use in loras if isinstance(loras, list) else []:
        weight = number(record(use).get("weight"))
        if name := stem(record(use).get("model")):
            tags += f" <lora:{name}:{1.0 if weight is None else weight:g}>"
    return tags
