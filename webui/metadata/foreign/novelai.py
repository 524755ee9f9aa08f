"""NovelAI: PNG chunks ``Software``, ``Description`` (the prompt), ``Source`` (the model) and ``Comment``, JSON.

Since its version 4 the prompts are in the JSON object as well, a base caption and one for each character.  Noise comes
from a graphics card; ``Clip skip: 2, ENSD: 31337`` are what AUTOMATIC1111 (``modules/images.py``) gives these pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from webui.metadata.foreign import Told, number, parsed, record, words
from webui.metadata.foreign.names import NEAREST, sampler, schedule
from webui.metadata.foreign.weights import from_novelai

_KNOWN = frozenset(
    {
        *("prompt", "uc", "steps", "scale", "seed", "sampler", "width", "height", "noise_schedule", "cfg_rescale"),
        *("strength", "v4_prompt", "v4_negative_prompt", "signed_hash", "request_type", "n_samples", "version"),
    }
)


def read(texts: Mapping[str, str]) -> Told | None:
    """What a picture of NovelAI tells; None for another one."""
    comment = parsed(texts.get("Comment"))
    if not isinstance(comment, dict) or not _is_novelai(texts, comment):
        return None
    told = Told("NovelAI")
    told.prompt = from_novelai(_prompt(comment, "v4_prompt", texts.get("Description") or words(comment.get("prompt"))))
    told.negative_prompt = from_novelai(_prompt(comment, "v4_negative_prompt", words(comment.get("uc"))))
    _put_sampling(told, comment)
    told.put("Seed", comment.get("seed"))
    width, height = number(comment.get("width")), number(comment.get("height"))
    if width and height:
        told.put("Size", f"{width:.0f}x{height:.0f}")
    told.put("Denoising strength", comment.get("strength"))
    told.put("CFG rescale", comment.get("cfg_rescale") or None)
    told.fields |= {"Clip skip": "2", "ENSD": "31337"}
    told.leave("Source", texts.get("Source"))
    told.leave_others(comment, _KNOWN)
    return told


def _is_novelai(texts: Mapping[str, str], comment: Mapping[str, Any]) -> bool:
    return texts.get("Software") == "NovelAI" or ("uc" in comment and "sampler" in comment and "scale" in comment)


def _prompt(comment: Mapping[str, Any], key: str, otherwise: str) -> str:
    """The base caption and those of the characters, one behind the other."""
    caption = record(record(comment.get(key)).get("caption"))
    characters = caption.get("char_captions")
    each = [words(record(one).get("char_caption")) for one in characters] if isinstance(characters, list) else []
    base = words(caption.get("base_caption")) or otherwise
    return ", ".join(filter(None, (base, *each)))


def _put_sampling(told: Told, comment: Mapping[str, Any]) -> None:
    told.put("Steps", comment.get("steps"))
    told.put("CFG scale", comment.get("scale"))
    name = words(comment.get("sampler"))
    if name:
        told.fields["Sampler"], _ = sampler(name)
        if name in NEAREST:
            told.leave("sampler", name)
    wanted = words(comment.get("noise_schedule"))
    told.fields["Schedule type"] = schedule(wanted) or "Automatic"
    if wanted and schedule(wanted) is None:
        told.leave("noise_schedule", wanted)
