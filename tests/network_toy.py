"""Networks that a prompt's tags name: a hypernetwork file, and an extension with a kind of its own and a file for it.

``STYLE`` is the extension's code: ``<style:name:strength:mode>`` adds the file's tokens to the context.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

STYLE = """
from dataclasses import dataclass
from typing import Literal
from webui.conditioning import Contribution, option
from webui.hooks import hookimpl

__version__ = "1.5"

@dataclass(frozen=True)
class Options:
    strength: float = option(1.0, "Strength", low=0, high=2)
    mode: Literal["Soft", "Hard"] = "Soft"
    tokens: int = option(8, "Tokens", low=1, high=8)
    turned: bool = False

class Styles:
    name, title, aliases, folders, options = "style", "style file", ("look",), ("styles",), Options

    def prepare(self, uses, model, request, pictures):
        import torch
        from webui.networks.unet import Openings

        given, problems = [], []
        for use in uses:
            tensors = pictures.formats.open(use.path).load("", model.compute.dtype, model.compute.device)
            unknown = sorted(tensors.keys() - {"tokens"})
            problems += [f'Of the style "{use.name}", {name} is not known.' for name in unknown]
            strength = use.options.strength * (2 if use.options.mode == "Hard" else 1)
            tokens = tensors["tokens"][: use.options.tokens] * strength
            given.append(-tokens if use.options.turned else tokens)
        return Contribution(Openings(extra_context=torch.cat(given)[None]), problems=tuple(problems))

@hookimpl
def register_extra_network_kinds():
    return [Styles()]
"""


def write_style(path: Path, seed: int = 0, width: int = 32, **more: torch.Tensor) -> Path:
    """A file of the extension; ``more`` are tensors that it does not know."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"tokens": torch.randn(8, width, generator=torch.Generator().manual_seed(seed)), **more}, path)
    return path


def write_hypernet(path: Path, widths: tuple[int, ...] = (16, 32), seed: int = 0) -> Path:
    """A file as AUTOMATIC1111 writes it."""
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)

    def chain(width: int) -> dict[str, torch.Tensor]:
        sizes = {"linear.0": (2 * width, width), "linear.2": (width, 2 * width)}
        weights = {f"{name}.weight": torch.randn(*size) * 0.2 for name, size in sizes.items()}
        return {**weights, **{f"{name}.bias": torch.randn(size[0]) * 0.1 for name, size in sizes.items()}}

    state = {"step": 100, "name": path.stem, "layer_structure": [1, 2, 1], "activation_func": "relu",
             "is_layer_norm": False, "activate_output": False, "sd_checkpoint": None}  # fmt: skip
    torch.save({**{width: (chain(width), chain(width)) for width in widths}, **state}, path)
    return path
