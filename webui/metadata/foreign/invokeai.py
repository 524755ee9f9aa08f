"""InvokeAI: PNG chunk ``invokeai_metadata`` (since 3.0), before that ``sd-metadata``, before that ``Dream``.

The first two are JSON objects; ``Dream`` is a command line: ``"a prompt [negative]" -s 50 -S 1 -W 512 -H 512 -C 7.5 -A
k_lms``.  Noise comes from the CPU unless ``rand_device`` says otherwise.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from webui.metadata.foreign import Told, number, parsed, record, stem, words
from webui.metadata.foreign.names import sampler
from webui.metadata.foreign.weights import from_invoke

PROGRAM = "InvokeAI"
_KNOWN = frozenset(
    {
        *("app_version", "generation_mode", "positive_prompt", "negative_prompt", "width", "height", "seed"),
        *("rand_device", "cfg_scale", "steps", "scheduler", "clip_skip", "model", "vae", "loras", "strength"),
        *("cfg_rescale_multiplier", "seamless_x", "seamless_y", "positive_style_prompt", "negative_style_prompt"),
        *("refiner_model", "refiner_start", "_canvas_objects"),
    }
)


def read(texts: Mapping[str, str]) -> Told | None:
    """What a picture of InvokeAI tells; None for another one."""
    newest = parsed(texts.get("invokeai_metadata"))
    if isinstance(newest, dict):
        return _newest(newest)
    older = record(parsed(texts.get("sd-metadata")))
    if isinstance(older.get("image"), dict):
        return _older(older, older["image"])
    return _oldest(texts["Dream"]) if "Dream" in texts else None


def _newest(data: Mapping[str, Any]) -> Told:
    told = Told(PROGRAM)
    told.prompt = from_invoke(words(data.get("positive_prompt"))) + _loras(data.get("loras"))
    told.negative_prompt = from_invoke(words(data.get("negative_prompt")))
    told.put("Steps", data.get("steps"))
    _put_sampler(told, words(data.get("scheduler")))
    told.put("CFG scale", data.get("cfg_scale"))
    told.put("Seed", data.get("seed"))
    _put_size(told, data.get("width"), data.get("height"))
    _put_model(told, data.get("model"))
    if vae := _model_name(data.get("vae")):
        told.fields["VAE"] = vae
    if skipped := number(data.get("clip_skip")):
        told.put("Clip skip", int(skipped) + 1)
    told.put("CFG rescale", data.get("cfg_rescale_multiplier") or None)
    if data.get("seamless_x") is True and data.get("seamless_y") is True:
        told.fields["Tiling"] = "True"
    told.put("Denoising strength", data.get("strength"))
    if refiner := _model_name(data.get("refiner_model")):
        told.fields["Refiner"] = refiner
        told.put("Refiner switch at", data.get("refiner_start"))
    told.fields["RNG"] = "CPU" if words(data.get("rand_device")) in ("", "cpu") else "GPU"
    told.leave_others(data, _KNOWN)
    return told


def _older(data: Mapping[str, Any], image: Mapping[str, Any]) -> Told:
    told = Told(PROGRAM)
    prompt = image.get("prompt")
    if isinstance(prompt, list):
        prompt = ", ".join(words(record(part).get("prompt")) for part in prompt)
    told.prompt, told.negative_prompt = _in_brackets(words(prompt))
    told.put("Steps", image.get("steps"))
    _put_sampler(told, words(image.get("sampler")))
    told.put("CFG scale", image.get("cfg_scale"))
    told.put("Seed", image.get("seed"))
    _put_size(told, image.get("width"), image.get("height"))
    told.put("Model", stem(data.get("model_weights")))
    told.put("Model hash", words(data.get("model_hash"))[:10])
    told.put("Denoising strength", image.get("strength"))
    if image.get("seamless") is True:
        told.fields["Tiling"] = "True"
    told.fields["RNG"] = "CPU"
    known = {"prompt", "steps", "sampler", "cfg_scale", "seed", "width", "height", "strength", "seamless", "type"}
    told.leave_others(image, frozenset(known))
    return told


_FLAGS = {"-s": "Steps", "-S": "Seed", "-C": "CFG scale", "-f": "Denoising strength"}


def _oldest(line: str) -> Told | None:
    try:
        prompt, *rest = shlex.split(line[:100_000])
    except ValueError:
        return None
    told = Told(PROGRAM)
    told.prompt, told.negative_prompt = _in_brackets(prompt)
    told.fields["RNG"] = "CPU"
    sides: dict[str, str] = {}
    for flag, value in _flags(rest):
        if flag in _FLAGS:
            told.put(_FLAGS[flag], value)
        elif flag in ("-W", "-H"):
            sides[flag] = value
        elif flag == "-A":
            _put_sampler(told, value)
        else:
            told.leave(flag, value or "True")
    _put_size(told, sides.get("-W"), sides.get("-H"))
    return told


def _flags(parts: list[str]) -> list[tuple[str, str]]:
    """The options of a command line with their values: ``-s 50``, ``-s50``, ``--name value``, ``--name=value``."""
    found: list[tuple[str, str]] = []
    for part in parts:
        if re.fullmatch(r"-[A-Za-z].*", part):
            found.append((part[:2], part[2:]))
        elif part.startswith("--"):
            name, _, value = part.partition("=")
            found.append((name, value))
        elif found and not found[-1][1]:
            found[-1] = (found[-1][0], part)
    return found


_NEGATIVE = re.compile(r"\[([^\[\]]*)\]")


def _in_brackets(prompt: str) -> tuple[str, str]:
    """Prompt and negative prompt of old versions, where the latter stood in square brackets."""
    negative = " ".join(_NEGATIVE.findall(prompt)).strip()
    return from_invoke(_NEGATIVE.sub("", prompt).strip()), from_invoke(negative)


def _put_sampler(told: Told, name: str) -> None:
    if name:
        told.fields["Sampler"], schedule = sampler(name)
        told.fields["Schedule type"] = schedule or "Automatic"


def _put_size(told: Told, width: Any, height: Any) -> None:
    sides = number(width), number(height)
    if sides[0] and sides[1]:
        told.put("Size", f"{sides[0]:.0f}x{sides[1]:.0f}")


def _put_model(told: Told, model: Any) -> None:
    told.put("Model", _model_name(model))
    digest = words(record(model).get("hash"))
    kind, _, value = digest.rpartition(":")
    if kind in ("", "sha256"):
        told.put("Model hash", value[:10])


def _model_name(model: Any) -> str:
    """A model's name: a text, or in one of the records that versions have used."""
    if isinstance(model, str):
        return stem(model)
    found = record(model)
    return stem(found.get("name") or found.get("model_name"))


def _loras(loras: Any) -> str:
    tags = ""
    for use in loras if isinstance(loras, list) else []:
        model = record(use).get("model") or record(use).get("lora")
        weight = number(record(use).get("weight"))
        if name := _model_name(model):
            tags += f" <lora:{name}:{1.0 if weight is None else weight:g}>"
    return tags
