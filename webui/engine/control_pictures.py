"""The control picture that a module's Preview shows.

Preprocessors run in the server process, without torch; where the options name one that computes with a network, the
whole preview is an errand of the worker's (``engine.errands``), which makes it by the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

Preprocess = Callable[[str, Pixels, Mapping[str, Any]], Pixels]


@dataclass(frozen=True, kw_only=True)
class ControlPictures:
    """What a process makes control pictures with.

    ``read`` gives a stored picture's bytes, ``preprocess`` runs a registered preprocessor, and ``ask`` a module's own
    function, by the module's name; it may say how long that takes.
    """

    plugins: Plugins
    library: Library
    read: Callable[[str], bytes]
    preprocess: Preprocess
    ask: Callable[[str, Callable[[], Pixels]], Pixels] = lambda name, function: function()

    def of_module(self, module: ConditioningModule, given: Mapping[str, Any]) -> Pixels:
        """What the module's preprocessor makes of its picture, (H, W, 3) uint8.

        Raises RequestError for options that do not fit, and without a picture.
        """
        options = options_of(module, full_names(module, given, self.plugins, self.library))
        own = getattr(module, "preview", None)
        if own is None:
            return _by_its_boxes(module, options, self._pictures(module))
        return self.ask(module.name, lambda: own(options, self._pictures(module)))

    def _pictures(self, module: ConditioningModule) -> Pictures:
        def encode(text: str) -> Any:
            raise RequestError(
                f"{module.name} asks for an encoded prompt, which the making of a picture alone has: it has no preview."
            )

        return Pictures(
            lambda sha256: read_pixels(self.read(sha256)),
            self.preprocess,
            lambda kind, name: self.library.find(name, kind).path,
            encode,
            mask=lambda sha256: read_mask(self.read(sha256)),
            preprocessor=lambda name: registered(name, self.plugins),
            model_entries=self.library.entries,
            formats=self.library.formats,
        )


def in_server(plugins: Plugins, library: Library, read: Callable[[str], bytes]) -> ControlPictures:
    """Those of the server process: within the time that hooks have, and without preprocessors of the worker's."""

    def preprocess(name: str, pixels: Pixels, options: Mapping[str, Any]) -> Pixels:
        if registered(name, plugins).needs_worker:
            raise RequestError(f"{name} computes with a network, which this preview was not prepared for.")
        return run_here(name, pixels, options, plugins)

    def ask(name: str, function: Callable[[], Pixels]) -> Pixels:
        made: Pixels = plugins.ask("register_conditioning_modules", name, f"preview of {name}", function)
        return made

    return ControlPictures(plugins=plugins, library=library, read=read, preprocess=preprocess, ask=ask)


def full_names(
    module: ConditioningModule, given: Mapping[str, Any], plugins: Plugins, library: Library
) -> dict[str, Any]:
    """The plain options with files and preprocessors by their full names.  Raises RequestError."""
    return {name: resolved_option(module, name, value, plugins, library) for name, value in given.items()}


def needs_worker(module: ConditioningModule, options: Mapping[str, Any], plugins: Plugins) -> bool:
    """Whether options name a preprocessor that computes with torch, which the server process does without."""
    named = {options.get(box.name) for box in all_boxes(module.options) if box.kind is Kind.PREPROCESSOR}
    return any(plugins.preprocessors[name].needs_worker for name in named if name in plugins.preprocessors)


def _by_its_boxes(module: ConditioningModule, options: Any, pictures: Pictures) -> Pixels:
    box = next((one for one in all_boxes(module.options) if one.kind is Kind.PREPROCESSOR and one.of), None)
    if box is None:
        raise RequestError(f"{module.name} has no preprocessor to show a preview of.")
    picture, preprocessor = getattr(options, box.of), getattr(options, box.name)
    if not picture:
        raise RequestError("There is no picture yet; choose one, then look at its preview.")
    pixels = pictures.load(picture)
    return pictures.preprocess(preprocessor, pixels, {}) if preprocessor else pixels


def run_here(name: str, pixels: Pixels, options: Mapping[str, Any], plugins: Plugins) -> Pixels:
    """The control picture of a registered preprocessor, made in this process and within the time that a hook has.

    Raises ExtensionError when it fails or gives something else than (H, W, 3) uint8.
    """
    preprocessor = registered(name, plugins)
    made = plugins.ask(
        "register_preprocessors", name, f"preprocessor {name}", lambda: preprocessor.run(pixels, options)
    )
    return checked_picture(made, name)


def checked_picture(made: Any, name: str) -> Pixels:
    """What the preprocessor ``name`` made.  Raises ExtensionError when it is no picture (H, W, 3) uint8."""
    if not isinstance(made, np.ndarray) or made.dtype != np.uint8 or made.ndim != 3 or made.shape[2] != 3:
        raise ExtensionError(f"The preprocessor {name} gave no picture of (height, width, 3) bytes; ask its author.")
    return made


def registered(name: str, plugins: Plugins) -> Preprocessor:
    """The registered preprocessor of this name.  Raises RequestError."""
    if name not in plugins.preprocessors:
        raise unknown_name("preprocessor", name, plugins.preprocessors)
    return plugins.preprocessors[name]
