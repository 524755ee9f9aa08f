"""Easy Diffusion: PNG chunks by the names of its fields, or one JSON object of them as the Exif comment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from webui.metadata.foreign import Told, number, parsed, stem, words
from webui.metadata.foreign.names import sampler

_LABELS = {
    "Prompt": "prompt",
    "Negative Prompt": "negative_prompt",
    "Seed": "seed",
    "Stable Diffusion model": "use_stable_diffusion_model",
    "Steps": "num_inference_steps",
    "Guidance Scale": "guidance_scale",
    "Prompt Strength": "prompt_strength",
    "Sampler": "sampler_name",
    "Width": "width",
    "Height": "height",
    "VAE model": "use_vae_model",
    "LoRA model": "use_lora_model",
    "Clip Skip": "clip_skip",
}
_KNOWN = frozenset({*_LABELS.values(), "lora_alpha", "tiling", "metadata_output_format"})


def read(texts: Mapping[str, str]) -> Told | None:
    """What a picture of Easy Diffusion tells; None for another one."""
    data = next((one for one in (texts, parsed(texts.get("parameters"))) if _is_ours(one)), None)
    if data is None:
        return None
    data = {_LABELS.get(key, key): value for key, value in data.items()}
    told = Told("Easy Diffusion", words(data.get("prompt")), words(data.get("negative_prompt")))
    if lora := stem(data.get("use_lora_model")):
        weight = number(data.get("lora_alpha"))
        told.prompt += f" <lora:{lora}:{1.0 if weight is None else weight:g}>"
    told.put("Steps", data.get("num_inference_steps"))
    told.put("CFG scale", data.get("guidance_scale"))
    told.put("Seed", data.get("seed"))
    if name := words(data.get("sampler_name")):
        told.fields["Sampler"], _ = sampler(name)
        told.fields["Schedule type"] = "Automatic"
    sides = number(data.get("width")), number(data.get("height"))
    if sides[0] and sides[1]:
        told.put("Size", f"{sides[0]:.0f}x{sides[1]:.0f}")
    told.put("Model", stem(data.get("use_stable_diffusion_model")))
    told.put("VAE", stem(data.get("use_vae_model")))
    told.put("Denoising strength", data.get("prompt_strength"))
    if str(data.get("clip_skip")).casefold() == "true":
        told.fields["Clip skip"] = "2"
    told.leave_others(data, _KNOWN)
    return told


def _is_ours(data: Any) -> bool:
    return isinstance(data, Mapping) and ("use_stable_diffusion_model" in data or "Stable Diffusion model" in data)
