"""The control picture that a module's Preview shows: preprocessors run in the server process, without torch.

A preprocessor that computes with a network (``Preprocessor.in_worker``) would have to be sent to the worker as a job of
its own: :func:`control_picture` is the place, and refuses it until then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from webui.checkpoints.library import Library
from webui.conditioning import ConditioningModule, Pictures
from webui.conditioning.modules import options_of
from webui.engine.module_options import resolved_option
from webui.errors import ExtensionError, RequestError, unknown_name
from webui.images.masks import read_mask
from webui.images.pixels import read_pixels
from webui.option_boxes import Kind, all_boxes
from webui.plugins.manager import Plugins
from webui.preprocessors import Preprocessor
from webui.result import Pixels


def control_picture(
    module: ConditioningModule,
    given: Mapping[str, Any],
    plugins: Plugins,
    library: Library,
    read: Callable[[str], bytes],
) -> Pixels:
    """What the module's preprocessor makes of its picture, (H, W, 3) uint8; ``read`` gives a stored picture's bytes.

    Raises RequestError for options that do not fit, without a picture, and for a preprocessor of the worker's.
    """
    found = {name: resolved_option(module, name, value, plugins, library) for name, value in given.items()}
    options = options_of(module, found)

    def preprocess(name: str, pixels: Pixels, own: Mapping[str, Any]) -> Pixels:
        return _preprocessed(name, pixels, own, plugins)

    def model_file(kind: str, name: str) -> Path:
        return library.find(name, kind).path

    def encode(text: str) -> Any:
        raise RequestError(f"{module.name} asks for an encoded prompt, which the worker alone has: it has no preview.")

    pictures = Pictures(
        lambda sha256: read_pixels(read(sha256)),
        preprocess,
        model_file,
        encode,
        mask=lambda sha256: read_mask(read(sha256)),
        preprocessor=lambda name: _registered(name, plugins),
        model_entries=library.entries,
        formats=library.formats,
    )
    own = getattr(module, "preview", None)
    if own is None:
        return _by_its_boxes(module, options, pictures)
    pixels: Pixels = plugins.ask(
        "register_conditioning_modules", module.name, f"preview of {module.name}", lambda: own(options, pictures)
    )
    return pixels


def _by_its_boxes(module: ConditioningModule, options: Any, pictures: Pictures) -> Pixels:
    box = next((one for one in all_boxes(module.options) if one.kind is Kind.PREPROCESSOR and one.of), None)
    if box is None:
        raise RequestError(f"{module.name} has no preprocessor to show a preview of.")
    picture, preprocessor = getattr(options, box.of), getattr(options, box.name)
    if not picture:
        raise RequestError("There is no picture yet; choose one, then look at its preview.")
    pixels = pictures.load(picture)
    return pictures.preprocess(preprocessor, pixels, {}) if preprocessor else pixels


def _preprocessed(name: str, pixels: Pixels, options: Mapping[str, Any], plugins: Plugins) -> Pixels:
    preprocessor = _registered(name, plugins)
    if preprocessor.in_worker:
        raise RequestError(f"{name} computes with a network; what it makes is seen in the picture, not in a preview.")
    return run_here(name, pixels, options, plugins)


def run_here(name: str, pixels: Pixels, options: Mapping[str, Any], plugins: Plugins) -> Pixels:
    """The control picture of a registered preprocessor, made in this process and within the time that a hook has.

    Raises ExtensionError when it fails or gives something else than (H, W, 3) uint8.
    """
    preprocessor = _registered(name, plugins)
    made = plugins.ask(
        "register_preprocessors", name, f"preprocessor {name}", lambda: preprocessor.run(pixels, options)
    )
    if not isinstance(made, np.ndarray) or made.dtype != np.uint8 or made.ndim != 3 or made.shape[2] != 3:
        raise ExtensionError(f"The preprocessor {name} gave no picture of (height, width, 3) bytes; ask its author.")
    return made


def _registered(name: str, plugins: Plugins) -> Preprocessor:
    if name not in plugins.preprocessors:
        raise unknown_name("preprocessor", name, plugins.preprocessors)
    return plugins.preprocessors[name]
