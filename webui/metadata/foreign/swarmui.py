"""StableSwarmUI: ``parameters`` is a JSON object with ``sui_image_params``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from webui.metadata.foreign import Told, number, parsed, record, stem, words
from webui.metadata.foreign.names import sampler, schedule

_KNOWN = frozenset(
    {
        *("prompt", "negativeprompt", "model", "seed", "steps", "cfgscale", "width", "height", "sampler", "scheduler"),
        *("vae", "loras", "loraweights", "variationseed", "variationseedstrength", "initimagecreativity"),
        *("clipstopatlayer", "swarm_version", "seamlesstileable"),
    }
)


def read(texts: Mapping[str, str]) -> Told | None:
    """What a picture of StableSwarmUI tells; None for another one."""
    data = record(record(parsed(texts.get("parameters"))).get("sui_image_params"))
    if not data:
        return None
    told = Told("StableSwarmUI", words(data.get("prompt")) + _loras(data), words(data.get("negativeprompt")))
    told.put("Steps", data.get("steps"))
    told.put("CFG scale", data.get("cfgscale"))
    told.put("Seed", data.get("seed"))
    name, scheduled = words(data.get("sampler")) or "euler", words(data.get("scheduler"))
    told.fields["Sampler"], _ = sampler(name)
    told.fields["Schedule type"] = schedule(scheduled or "normal") or scheduled
    sides = number(data.get("width")), number(data.get("height"))
    if sides[0] and sides[1]:
        told.put("Size", f"{sides[0]:.0f}x{sides[1]:.0f}")
    told.put("Model", stem(data.get("model")))
    if (vae := stem(data.get("vae"))) not in ("", "None", "Automatic"):
        told.put("VAE", vae)
    told.put("Denoising strength", data.get("initimagecreativity"))
    if number(data.get("variationseedstrength")):
        told.put("Variation seed", data.get("variationseed"))
        told.put("Variation seed strength", data.get("variationseedstrength"))
    if last := number(data.get("clipstopatlayer")):
        told.put("Clip skip", abs(int(last)))
    told.fields["RNG"] = "CPU"
    told.leave_others(data, _KNOWN)
    return told


def _loras(data: Mapping[str, Any]) -> str:
    names, weights = data.get("loras"), data.get("loraweights")
    each = names if isinstance(names, list) else words(names).split(",")
    strengths = weights if isinstance(weights, list) else words(weights).split(",")
    tags = ""
    for index, name in enumerate(each):
        weight = number(strengths[index]) if index < len(strengths) else None
        if stem(name):
            tags += f" <lora:{stem(name)}:{1.0 if weight is None else weight:g}>"
    return tags
