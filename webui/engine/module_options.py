"""The options of a request's conditioning modules: checked and spelled out, and the pictures that they name.

Torch-free: a request is checked when it is made.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from webui.checkpoints.library import Library
from webui.conditioning import ConditioningModule
from webui.conditioning.modules import check_units, checked_option, full_options
from webui.errors import PictureError, RequestError, unknown_name
from webui.option_boxes import Box, Kind, all_boxes, with_pictures
from webui.plugins.manager import Plugins
from webui.preprocessors import KIND as PREPROCESSOR
from webui.preprocessors import Preprocessor, usable
from webui.request import GenerationRequest, ModuleUse

_SPACE = re.compile(r"\s+")


def module_named(name: str, modules: Mapping[str, ConditioningModule]) -> ConditioningModule:
    """The module of this name.  Raises RequestError, with the nearest known name."""
    if name not in modules:
        raise unknown_name("conditioning module", name, modules)
    return modules[name]


def resolved_modules(uses: Sequence[ModuleUse], plugins: Plugins, library: Library) -> tuple[ModuleUse, ...]:
    """The uses with every option spelled out and model files by their full names.

    Raises RequestError for what is not known here, does not fit, or is used too often.
    """
    modules = plugins.conditioning_modules
    found = []
    for use in uses:
        module = module_named(use.name, modules)
        options = full_options(module, use.options)
        for box in all_boxes(module.options):
            options[box.name] = _by_full_name(module, box, options[box.name], plugins, library)
        found.append(replace(use, options=options))
    check_units(modules, [use.name for use in uses])
    return tuple(found)


def resolved_option(module: ConditioningModule, name: str, value: Any, plugins: Plugins, library: Library) -> Any:
    """The plain value of one option; a model file by its full name.

    Raises RequestError for an unknown option, a value that does not fit, or a name that is not known here.
    """
    box, plain = checked_option(module, name, value)
    return _by_full_name(module, box, plain, plugins, library)


def _by_full_name(module: ConditioningModule, box: Box, value: Any, plugins: Plugins, library: Library) -> Any:
    """A value by its full name, where it names a model file or a preprocessor.  Raises RequestError."""
    try:
        if box.kind is Kind.MODEL and value:
            return library.find(value, box.of).name
        if box.kind is Kind.PREPROCESSOR and value:
            return _preprocessor(value, plugins.preprocessors.values(), library)
    except RequestError as error:
        raise RequestError(f"{module.name}: {box.label}: {error}") from error
    return value


def _preprocessor(wanted: str, preprocessors: Collection[Preprocessor], library: Library) -> str:
    """The name of the preprocessor with this name or alias, whatever its case.

    Raises RequestError for an unknown one, and for one whose model file is not there.
    """
    for one in preprocessors:
        if wanted.casefold() in {name.casefold() for name in (one.name, *one.aliases)}:
            one.file(library.entries(PREPROCESSOR))
            return one.name
    raise unknown_name("preprocessor", wanted, usable(preprocessors, library.entries(PREPROCESSOR)))


def module_pictures(request: GenerationRequest, modules: Mapping[str, ConditioningModule]) -> Iterator[str]:
    """The SHA-256 of every stored picture that the options of a resolved request name."""
    for use in request.modules:
        for box in all_boxes(modules[use.name].options):
            if box.is_picture and use.options.get(box.name):
                yield use.options[box.name]


def listed(box: Box, plugins: Plugins, library: Library) -> list[str] | None:
    """What a box of model files or of preprocessors can hold at the moment, "" first; None for other boxes."""
    if box.kind is Kind.MODEL:
        return ["", *(entry.name for entry in library.entries(box.of))]
    if box.kind is Kind.PREPROCESSOR:
        return ["", *usable(plugins.preprocessors.values(), library.entries(PREPROCESSOR))]
    return None


def with_stored_pictures(body: Any, modules: Mapping[str, ConditioningModule], put: Callable[[bytes], str]) -> Any:
    """A request as plain values with the pictures in its modules' options (base64, data: URI) stored by ``put``.

    What is no request is left to whoever reads it.  Raises RequestError for what is no picture.
    """
    uses = body.get("modules") if isinstance(body, Mapping) else None
    if not isinstance(uses, list | tuple):
        return body
    return {**body, "modules": [_stored_use(use, modules, put) for use in uses]}


def _stored_use(use: Any, modules: Mapping[str, ConditioningModule], put: Callable[[bytes], str]) -> Any:
    options = use.get("options") if isinstance(use, Mapping) else None
    name = use.get("name") if isinstance(use, Mapping) else None
    if not isinstance(options, Mapping) or not isinstance(name, str) or name not in modules:
        return use

    def keep(text: str) -> str:
        try:
            return put(picture_of(text))
        except (ValueError, PictureError) as error:
            raise RequestError(
                f"{name}: a picture must be the SHA-256 of a stored one, or the picture itself in base64; "
                f"this is neither: {text[:20]!r}."
            ) from error

    return {**use, "options": with_pictures(modules[name].options, options, keep)}


def picture_of(text: str) -> bytes:
    """The bytes that base64 or a data: URI stands for.  Raises ValueError."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(_SPACE.sub("", text), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
