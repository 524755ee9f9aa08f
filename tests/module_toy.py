"""An extension with a conditioning module whose record has every kind of option: a tint of the whole picture.

``TINT`` is its code.  It adds tokens to the context that depend on every option, so that each changes the picture.
"""

from __future__ import annotations

TINT = """
from dataclasses import dataclass
from typing import Literal
from webui.conditioning import Contribution
from webui.hooks import hookimpl
from webui.option_boxes import Kind, option
from webui.preprocessors import Preprocessor

@dataclass(frozen=True, kw_only=True)
class Options:
    image: str = option("", "Picture", kind=Kind.PICTURE)
    mask: str = option("", "Mask", kind=Kind.MASK, of="image")
    preprocessor: str = option("", "Preprocessor", kind=Kind.PREPROCESSOR, of="image")
    model: str = option("", "Model", kind=Kind.MODEL, of="controlnet")
    strength: float = option(1.0, "Strength", low=0, high=2, step=0.05)
    tokens: int = option(1, "How many tokens", low=1, high=8, step=1)
    words: str = option("", "Words", hint="what it says")
    mode: str = option("Soft", "Mode", choices=("Soft", "Hard"))
    softness: float = option(0.5, "Softness", low=0, high=1, step=0.1, when=("mode", "Soft"))
    inverted: bool = option(False, "Inverted")
    places: tuple[float, ...] = ()

class Tint:
    name, label, units, order, options = "Tint", "Tint of it", 2, 5, Options

    def prepare(self, options, model, request, pictures):
        import torch
        from webui.networks.unet import Openings
        level = options.strength + len(options.words) + (options.mode == "Hard") + 3 * options.inverted
        level += options.softness + sum(options.places)
        if options.image:
            pixels = pictures.load(options.image)
            if options.preprocessor:
                pixels = pictures.preprocess(options.preprocessor, pixels, {})
            level += float(pixels.mean()) / 255
        if options.mask:
            level += float(pictures.load(options.mask).mean()) / 255
        if options.model:
            level += pictures.model_file("controlnet", options.model).stat().st_size % 7
        return Contribution(Openings(extra_context=torch.full((1, options.tokens, 32), level / 10)))

def negative(pixels, options):
    return 255 - pixels

@hookimpl
def register_conditioning_modules():
    return [Tint()]

@hookimpl
def register_preprocessors():
    return [Preprocessor(name="negative", run=negative)]
"""
