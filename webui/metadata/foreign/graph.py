"""ComfyUI's graphs: the ``prompt`` that was run, or the ``workflow`` of its page, as nodes with named inputs.

A graph comes from a stranger: links may lead nowhere or in circles, so every walk sees a node once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from webui.metadata.foreign import record

MOST_NODES = 20_000
_WIDGETS: Mapping[str, Sequence[str]] = {
    "KSampler": ("seed", "", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        *("add_noise", "noise_seed", "", "steps", "cfg", "sampler_name", "scheduler", "start_at_step", "end_at_step"),
        "return_with_leftover_noise",
    ),
    "SamplerCustom": ("add_noise", "noise_seed", "", "cfg"),
    "RandomNoise": ("noise_seed",),
    "CFGGuider": ("cfg",),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "KarrasScheduler": ("steps", "sigma_max", "sigma_min", "rho"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name",),
    "VAELoader": ("vae_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "CLIPTextEncode": ("text",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "LatentUpscale": ("upscale_method", "width", "height", "crop"),
    "LatentUpscaleBy": ("upscale_method", "scale_by"),
    "UpscaleModelLoader": ("model_name",),
    "ControlNetLoader": ("control_net_name",),
    "ControlNetApply": ("strength",),
    "ControlNetApplyAdvanced": ("strength", "start_percent", "end_percent"),
    "LoadImage": ("image",),
    "PrimitiveNode": ("value",),
    "FreeU": ("b1", "b2", "s1", "s2"),
    "FreeU_V2": ("b1", "b2", "s1", "s2"),
    "TomePatchModel": ("ratio",),
    "RescaleCFG": ("multiplier",),
    "ModelSamplingDiscrete": ("sampling", "zsnr"),
}
"""What the values of a node's widgets on the page are called, in their order; an empty name means nothing here."""
_SKIPPED_MODES = (2, 4)
"""Nodes that were muted or bypassed."""


@dataclass(frozen=True)
class Node:
    """A node: its kind, and its inputs by name, values or links ``[node, output]``."""

    name: str
    kind: str
    inputs: Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """The nodes by name."""

    nodes: Mapping[str, Node]

    @classmethod
    def of_prompt(cls, data: Any) -> Graph | None:
        """The graph of a ``prompt``; None for anything else."""
        nodes = {}
        for name, node in list(record(data).items())[:MOST_NODES]:
            if isinstance(node, dict) and isinstance(node.get("class_type"), str):
                nodes[name] = Node(name, node["class_type"], record(node.get("inputs")))
        return cls(nodes) if nodes else None

    @classmethod
    def of_workflow(cls, data: Any) -> Graph | None:
        """The graph of a ``workflow``, as far as its nodes' widgets are known; None for anything else."""
        listed = record(data).get("nodes")
        if not isinstance(listed, list):
            return None
        sources = _sources(record(data).get("links"))
        nodes = {}
        for node in listed[:MOST_NODES]:
            if isinstance(node, dict) and isinstance(node.get("type"), str) and node.get("mode") not in _SKIPPED_MODES:
                name = str(node.get("id"))
                nodes[name] = Node(name, node["type"], {**_widgets(node), **_links(node, sources)})
        return cls(nodes) if nodes else None

    def source(self, value: Any) -> Node | None:
        """The node that a link leads to; None for a plain value and for a link to nowhere."""
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int):
            return self.nodes.get(str(value[0]))
        return None

    def before(self, start: Any, follow: Callable[[Node, str], bool]) -> Iterator[Node]:
        """The nodes that a link comes from, the nearest first, each once.

        ``follow`` says which of a node's inputs, by name, are followed.
        """
        seen: set[str] = set()
        waiting = [start]
        for value in waiting:
            node = self.source(value)
            if node is None or node.name in seen:
                continue
            seen.add(node.name)
            yield node
            waiting += [each for name, each in node.inputs.items() if isinstance(each, list) and follow(node, name)]

    def value(self, value: Any, names: Sequence[str] = ("value",)) -> Any:
        """A plain value, or the one that a link leads to: of the first node that has an input of these ``names``."""
        if not isinstance(value, list):
            return value
        for node in self.before(value, lambda node, name: True):
            for name in (*names, "value", "int", "float", "string", "text"):
                if name in node.inputs and not isinstance(node.inputs[name], list | dict):
                    return node.inputs[name]
        return None


def _sources(links: Any) -> dict[Any, list[Any]]:
    """The output that each link of a workflow comes from."""
    sources: dict[Any, list[Any]] = {}
    for link in links if isinstance(links, list) else []:
        if isinstance(link, list) and len(link) >= 5 and isinstance(link[0], int):
            sources[link[0]] = [str(link[1]), link[2]]
        elif isinstance(link, dict) and isinstance(link.get("id"), int):
            sources[link["id"]] = [str(link.get("origin_id")), link.get("origin_slot")]
    return sources


def _widgets(node: Mapping[str, Any]) -> dict[str, Any]:
    values = node.get("widgets_values")
    if isinstance(values, dict):
        return dict(values)
    if not isinstance(values, list):
        return {}
    return {name: value for name, value in zip(_WIDGETS.get(node["type"], ()), values, strict=False) if name}


def _links(node: Mapping[str, Any], sources: Mapping[Any, list[Any]]) -> dict[str, Any]:
    inputs = node.get("inputs")
    found = {}
    for each in inputs if isinstance(inputs, list) else []:
        link = record(each).get("link")
        if isinstance(link, int) and link in sources:
            found[str(record(each).get("name"))] = sources[link]
    return found
