"""Fooocus: a JSON object as ``parameters`` or as the Exif comment (its own scheme).

Keys are those of ``modules/meta_parser.py``; old logs have the labels ("Resolution") instead.  Its other scheme is a
text like AUTOMATIC1111's.  Noise comes from the CPU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from webui.metadata.foreign import Told, number, parsed, stem, words
from webui.metadata.foreign.names import sampler, schedule

_LABELS = {
    "Prompt": "prompt",
    "Negative Prompt": "negative_prompt",
    "Full Prompt": "full_prompt",
    "Full Negative Prompt": "full_negative_prompt",
    "Fooocus V2 Expansion": "prompt_expansion",
    "Styles": "styles",
    "Performance": "performance",
    "Steps": "steps",
    "Resolution": "resolution",
    "Guidance Scale": "guidance_scale",
    "Sharpness": "sharpness",
    "ADM Guidance": "adm_guidance",
    "Base Model": "base_model",
    "Refiner Model": "refiner_model",
    "Refiner Switch": "refiner_switch",
    "Sampler": "sampler",
    "Scheduler": "scheduler",
    "Seed": "seed",
    "Version": "version",
}
_KNOWN = frozenset(
    {
        *("prompt", "negative_prompt", "full_prompt", "full_negative_prompt", "steps", "resolution", "guidance_scale"),
        *("base_model", "base_model_hash", "refiner_model", "refiner_switch", "sampler", "scheduler", "seed", "vae"),
        *("loras", "clip_skip", "version", "metadata_scheme", "created_by", "adaptive_cfg", "refiner_swap_method"),
    }
)
_SIDES = re.compile(r"\(?\s*(\d{1,5})\D{1,8}(\d{1,5})\s*\)?")


def read(texts: Mapping[str, str]) -> Told | None:
    """What a picture of Fooocus tells; None for another one."""
    data = next((one for one in (parsed(texts.get("parameters")), parsed(texts.get("Comment"))) if _is_ours(one)), None)
    if data is None:
        return None
    data = {_LABELS.get(key, key): value for key, value in data.items()}
    told = Told("Fooocus")
    told.prompt = _joined(data.get("full_prompt")) or words(data.get("prompt"))
    told.negative_prompt = _joined(data.get("full_negative_prompt")) or words(data.get("negative_prompt"))
    told.prompt += _loras(data)
    _put_sampling(told, data)
    told.put("Seed", data.get("seed"))
    if sides := _SIDES.search(str(data.get("resolution"))[:40]):
        told.put("Size", f"{sides[1]}x{sides[2]}")
    told.put("Model", stem(data.get("base_model")))
    told.put("Model hash", words(data.get("base_model_hash"))[:10])
    told.put("Clip skip", data.get("clip_skip"))
    if (vae := stem(data.get("vae"))) and not vae.startswith("Default"):
        told.put("VAE", vae)
    if (refiner := stem(data.get("refiner_model"))) not in ("", "None"):
        told.put("Refiner", refiner)
        told.put("Refiner switch at", data.get("refiner_switch"))
    told.fields["RNG"] = "CPU"
    told.leave_others({key: value for key, value in data.items() if not key.lower().startswith("lora")}, _KNOWN)
    return told


def _is_ours(data: Any) -> bool:
    if not isinstance(data, dict):
        return False
    return ("base_model" in data or "Base Model" in data) and ("prompt" in data or "Prompt" in data)


def _joined(value: Any) -> str:
    return ", ".join(map(words, value)) if isinstance(value, list) else words(value)


def _put_sampling(told: Told, data: Mapping[str, Any]) -> None:
    told.put("Steps", data.get("steps"))
    told.put("CFG scale", data.get("guidance_scale"))
    if name := words(data.get("sampler")):
        told.fields["Sampler"], _ = sampler(name)
    if name := words(data.get("scheduler")):
        told.fields["Schedule type"] = schedule(name) or name


def _loras(data: Mapping[str, Any]) -> str:
    """Tags for a list of [name, weight, hash], and for keys such as ``lora_combined_1``: "name : weight"."""
    uses: list[tuple[Any, Any]] = []
    listed = data.get("loras")
    for use in listed if isinstance(listed, list) else []:
        if isinstance(use, list) and len(use) >= 2:
            uses.append((use[0], use[1]))
    if not uses:
        for key, value in data.items():
            if key.lower().startswith("lora") and isinstance(value, str) and ":" in value:
                name, _, weight = value.rpartition(":")
                uses.append((name.strip(), weight.strip()))
    named = ((stem(name), number(weight)) for name, weight in uses)
    return "".join(f" <lora:{name}:{1.0 if weight is None else weight:g}>" for name, weight in named if name)
