"""ComfyUI: PNG chunks ``prompt`` (the graph that was run) and ``workflow`` (that of the page), JSON objects.

From the sampler the links lead back to the prompts, the checkpoint, its LoRAs and the latent's size.  A sampler that
begins with an enlarged latent of another is a second pass, one that goes on where another stops a refiner.  Noise comes
from the CPU; square brackets are text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from webui.metadata.foreign import Told, number, parsed, stem, words
from webui.metadata.foreign.graph import Graph, Node
from webui.metadata.foreign.names import NEAREST, sampler, schedule

_SAMPLING = ("latent_image", "positive", "guider")
_LATENTS = frozenset({"samples", "latent", "latent_image", "pixels", "image", "images", "upscale_model", ""})
_TEXTS = ("text", "text_g", "text_l", "prompt", "string", "value", "clip_l", "t5xxl", "positive_prompt")
_UPSCALERS = {
    "bilinear": "Latent",
    "area": "Latent",
    "bislerp": "Latent",
    "bicubic": "Latent (bicubic)",
    "nearest-exact": "Latent (nearest-exact)",
}
_ESCAPED = re.compile(r"\\.|[\[\]]", re.DOTALL)
_EMBEDDING = re.compile(r"\bembedding:\s*([\w\-. /\\]+?)(?=[,:)\s]|$)")


def read(texts: Mapping[str, str]) -> Told | None:
    """What a picture of ComfyUI tells; None for another one."""
    graph = None
    for key in ("prompt", "workflow", "parameters"):
        data = parsed(texts.get(key))
        if isinstance(data, dict):
            graph = graph or Graph.of_prompt(data.get("prompt", data)) or Graph.of_workflow(data.get("workflow", data))
    if graph is None:
        return None
    told = Told("ComfyUI")
    passes = _passes(graph)
    if not passes:
        told.leave("ComfyUI", f"no sampler among its {len(graph.nodes)} nodes")
        return told
    told.fields["RNG"] = "CPU"
    _tell_first(told, graph, passes[0])
    for later in passes[1:2]:
        _tell_second(told, graph, passes[0], later)
    for later in passes[2:]:
        told.leave(later.node.kind, f"a further pass (node {later.node.name})")
    return told


@dataclass(frozen=True)
class _Pass:
    """A sampler with what its helpers say, plain values and links."""

    node: Node
    seed: Any
    steps: Any
    cfg: Any
    sampler: str
    scheduler: str
    denoise: Any
    model: Any
    positive: Any
    negative: Any
    latent: Any


def _is_sampler(node: Node) -> bool:
    inputs = node.inputs
    return "latent_image" in inputs and ("positive" in inputs or "guider" in inputs)


def _passes(graph: Graph) -> list[_Pass]:
    """The passes that made the picture, the first one first: the longest chain of samplers."""
    chains = []
    for node in [node for node in graph.nodes.values() if _is_sampler(node)][:50]:
        before = graph.before(node.inputs["latent_image"], lambda _, name: name in _LATENTS)
        chains.append([node, *(one for one in before if _is_sampler(one) and one is not node)])
    longest = max(chains, key=len, default=[])
    return [_pass(graph, node) for node in reversed(longest)]


def _pass(graph: Graph, node: Node) -> _Pass:
    inputs = node.inputs
    guider = graph.source(inputs.get("guider"))
    guided: Mapping[str, Any] = guider.inputs if guider else {}
    sigmas = graph.source(inputs.get("sigmas"))
    levels: Mapping[str, Any] = sigmas.inputs if sigmas else {}
    kind = sigmas.kind.removesuffix("Scheduler").casefold() if sigmas else ""
    scheduler = words(graph.value(levels.get("scheduler"))) or ("" if kind == "basic" else kind)

    def one(*names: str) -> Any:
        return next((found[name] for name in names for found in (inputs, guided, levels) if name in found), None)

    return _Pass(
        node=node,
        seed=graph.value(one("seed", "noise_seed") or inputs.get("noise"), ("noise_seed", "seed")),
        steps=graph.value(one("steps"), ("steps",)),
        cfg=graph.value(one("cfg"), ("cfg",)),
        sampler=words(graph.value(one("sampler_name") or inputs.get("sampler"), ("sampler_name",))),
        scheduler=words(graph.value(inputs.get("scheduler"), ("scheduler",))) or scheduler,
        denoise=graph.value(one("denoise"), ("denoise",)),
        model=one("model"),
        positive=one("positive", "conditioning"),
        negative=one("negative"),
        latent=inputs["latent_image"],
    )


def _tell_first(told: Told, graph: Graph, first: _Pass) -> None:
    told.prompt, told.negative_prompt = _prompts(told, graph, first)
    told.put("Steps", first.steps)
    told.put("CFG scale", first.cfg)
    told.put("Seed", first.seed)
    told.fields["Sampler"], _ = sampler(first.sampler)
    told.fields["Schedule type"] = schedule(first.scheduler or "normal") or first.scheduler
    if first.sampler in NEAREST:
        told.leave("sampler_name", first.sampler)
    told.prompt += _tell_model(told, graph, first.model)
    _tell_latent(told, graph, first)
    for node in graph.nodes.values():
        vae = graph.source(node.inputs.get("vae"))
        if node.kind.startswith("VAEDecode") and vae is not None and "vae_name" in vae.inputs:
            told.put("VAE", stem(vae.inputs["vae_name"]))
        if node.kind.startswith("ControlNetApply"):
            name = graph.value(node.inputs.get("control_net"), ("control_net_name",))
            told.leave("ControlNet", f"{stem(name)}, strength {node.inputs.get('strength')}")


def _prompts(told: Told, graph: Graph, one: _Pass) -> tuple[str, str]:
    return _prompt(told, graph, one.positive, "positive"), _prompt(told, graph, one.negative, "negative")


def _prompt(told: Told, graph: Graph, link: Any, side: str) -> str:
    """What the text encoders before a link are given, in A1111's grammar; more than one text joined by commas."""
    other = "negative" if side == "positive" else "positive"

    def leads_to_texts(node: Node, name: str) -> bool:
        return name.startswith(("conditioning", side)) or (name == "" and name != other)

    encoders = [node for node in graph.before(link, leads_to_texts) if _texts(node)]
    found = [_text(graph, node) for node in encoders]
    for node in encoders:
        layers = (one.inputs.get("stop_at_clip_layer") for one in graph.before(node.inputs.get("clip"), _any_clip))
        last = next((number(layer) for layer in layers if number(layer) is not None), None)
        if last is not None:
            told.put("Clip skip", abs(int(last)))
    return ", ".join(dict.fromkeys(_in_our_grammar(text) for text in found if text.strip()))


def _any_clip(node: Node, name: str) -> bool:
    return name == "clip"


def _texts(node: Node) -> Sequence[str]:
    """The names of an encoder's inputs that are texts."""
    return [name for name in _TEXTS if name in node.inputs]


def _text(graph: Graph, encoder: Node) -> str:
    pieces = []
    for name in _texts(encoder):
        value = encoder.inputs[name]
        if isinstance(value, str):
            pieces.append(value)
            continue
        for node in graph.before(value, lambda node, name: True):
            pieces += [node.inputs[key] for key in node.inputs if _is_text_of(node, key)]
    return ", ".join(dict.fromkeys(piece.strip() for piece in pieces if piece.strip()))


def _is_text_of(node: Node, key: str) -> bool:
    return isinstance(node.inputs[key], str) and key.casefold().startswith(("text", "string", "value", "prompt"))


def _in_our_grammar(text: str) -> str:
    """A prompt of ComfyUI: embeddings by their bare name, square brackets as text."""
    text = _EMBEDDING.sub(lambda match: stem(match[1]), text)
    return _ESCAPED.sub(lambda match: match[0] if match[0].startswith("\\") else "\\" + match[0], text)


def _tell_model(told: Told, graph: Graph, link: Any) -> str:
    """Names the checkpoint and what patches it; returns tags for its LoRAs, in the order in which they are applied."""
    tags: list[str] = []
    for node in graph.before(link, lambda _, name: name in ("model", "")):
        inputs = node.inputs
        if name := stem(inputs.get("ckpt_name") or inputs.get("unet_name")):
            told.fields.setdefault("Model", name)
        elif lora := stem(inputs.get("lora_name")):
            tags.append(_lora(lora, number(inputs.get("strength_model")), number(inputs.get("strength_clip"))))
        elif node.kind == "RescaleCFG":
            told.put("CFG rescale", inputs.get("multiplier"))
        elif node.kind == "TomePatchModel":
            told.put("Token merging ratio", inputs.get("ratio"))
        elif node.kind == "ModelSamplingDiscrete" and inputs.get("zsnr") is True:
            told.fields["Noise Schedule"] = "Zero Terminal SNR"
        elif node.kind != "Reroute":
            told.leave(node.kind, {key: value for key, value in inputs.items() if not isinstance(value, list)} or "on")
    return "".join(f" {tag}" for tag in reversed(tags))


def _lora(name: str, unet: float | None, text: float | None) -> str:
    unet = 1.0 if unet is None else unet
    if text is None or text == unet:
        return f"<lora:{name}:{unet:g}>" if text is not None else f"<lora:{name}:0:{unet:g}>"
    return f"<lora:{name}:{text:g}:{unet:g}>"


def _tell_latent(told: Told, graph: Graph, first: _Pass) -> None:
    denoise = number(first.denoise)
    for node in graph.before(first.latent, lambda _, name: name in _LATENTS):
        width, height = (number(graph.value(node.inputs.get(side), (side,))) for side in ("width", "height"))
        if width and height and "Size" not in told.fields:
            told.put("Size", f"{width:.0f}x{height:.0f}")
            if (batch := number(node.inputs.get("batch_size"))) is not None and batch > 1:
                told.leave("batch_size", node.inputs["batch_size"])
        if node.kind.startswith("VAEEncode"):
            told.put("Denoising strength", 1.0 if denoise is None else denoise)
        elif node.kind.startswith("LoadImage"):
            told.leave(node.kind, node.inputs.get("image"))
    if denoise is not None and denoise < 1 and "Denoising strength" not in told.fields:
        told.leave("denoise", first.denoise)


def _tell_second(told: Told, graph: Graph, first: _Pass, second: _Pass) -> None:
    """A second pass: a refiner where it goes on with the same steps, else a hires fix."""
    start, steps = number(second.node.inputs.get("start_at_step")), number(second.steps)
    if start and steps and steps == number(first.steps):
        refiner = Told("ComfyUI")
        _tell_model(refiner, graph, second.model)
        told.put("Refiner", refiner.fields.get("Model"))
        told.put("Refiner switch at", round(min(1.0, start / steps), 4))
        told.fields["Refiner switch by sampling steps"] = "True"
        return
    told.put("Denoising strength", 1.0 if number(second.denoise) is None else second.denoise)
    told.put("Hires steps", second.steps)
    name, _ = sampler(second.sampler)
    if name != told.fields["Sampler"]:
        told.put("Hires sampler", name)
    label = schedule(second.scheduler or "normal") or second.scheduler
    if label != told.fields["Schedule type"] or name != told.fields["Sampler"]:
        told.put("Hires schedule type", label)
    if number(second.cfg) != number(first.cfg):
        told.put("Hires CFG Scale", second.cfg)
    prompt, negative = _prompts(Told("ComfyUI"), graph, second)
    bare, _ = _prompts(Told("ComfyUI"), graph, first)
    if prompt and prompt != bare:
        told.put("Hires prompt", prompt)
    if negative and negative != told.negative_prompt:
        told.put("Hires negative prompt", negative)
    _tell_enlargement(told, graph, first, second)


def _tell_enlargement(told: Told, graph: Graph, first: _Pass, second: _Pass) -> None:
    told.fields["Hires upscaler"] = "Latent"
    for node in graph.before(second.latent, lambda _, name: name in _LATENTS):
        if node.name == first.node.name:
            break
        method = words(node.inputs.get("upscale_method"))
        if node.kind.startswith("Latent") and method:
            told.fields["Hires upscaler"] = _UPSCALERS.get(method, "Latent")
        if model := stem(node.inputs.get("model_name")):
            told.fields["Hires upscaler"] = model
        if (factor := number(graph.value(node.inputs.get("scale_by")))) is not None:
            told.put("Hires upscale", float(factor))
        sides = [number(graph.value(node.inputs.get(side), (side,))) for side in ("width", "height")]
        if None not in sides and any(sides):
            told.put("Hires resize", f"{sides[0]:.0f}x{sides[1]:.0f}")
    if "Hires resize" not in told.fields:
        told.fields.setdefault("Hires upscale", "1.0")
    else:
        told.fields.pop("Hires upscale", None)
