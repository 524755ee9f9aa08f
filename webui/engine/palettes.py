"""The colours that a module's picture can be painted with, and what each of them stands for at the moment.

Called by the engine for ``POST /api/v1/modules/palette``, while a person types.  Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from webui.checkpoints.library import Library
from webui.conditioning import ConditioningModule, Palette
from webui.conditioning.modules import options_of
from webui.engine.module_options import resolved_option
from webui.engine.resolve import uncommented
from webui.errors import ExtensionError, RequestError
from webui.plugins.manager import Plugins
from webui.prompt.extra_networks import extract
from webui.request import GenerationRequest


def palette(
    module: ConditioningModule,
    given: Mapping[str, Any],
    request: GenerationRequest,
    plugins: Plugins,
    library: Library,
) -> Palette:
    """The module's palette for these options, by name, and the request's prompts and size.

    Raises RequestError for options that do not fit and what the module says itself, ExtensionError when it fails.
    """
    if not hasattr(module, "palette"):
        raise RequestError(f"{module.name} has nothing to be painted.")
    options = options_of(
        module, {name: resolved_option(module, name, value, plugins, library) for name, value in given.items()}
    )
    plain = uncommented(request)
    plain = replace(plain, prompt=extract(plain.prompt).text)
    found = plugins.ask(
        "register_conditioning_modules",
        module.name,
        f"palette of {module.name}",
        lambda: module.palette(options, plain),
    )
    if not isinstance(found, Palette):
        raise ExtensionError(f"The palette of {module.name} is a {type(found).__name__}; it must be a Palette.")
    return found
