"""``alwayson_scripts``: which names are taken, and what those that change pixels mean for the request.

A conditioning module is an always-on script of its name: its ``always_on`` says which uses the arguments mean; without
it each argument is an object with options by name.  What a body's ``infotext`` tells of modules is used as well.

Upstream runs "Sampler", "Seed" and "Refiner" for its own page alone, "Extra options" only shows settings, and
"Hypertile" reads settings: their arguments are taken and mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from webui.api.sdapi.errors import UpstreamError
from webui.conditioning import ConditioningModule
from webui.errors import ExtensionError, RequestError, WebUIError
from webui.metadata import module_texts
from webui.metadata.infotext import parse
from webui.option_boxes import with_pictures
from webui.plugins.manager import Plugins
from webui.request import ModuleUse, SoftInpainting

SOFT_INPAINTING = "soft inpainting"
WITHOUT_MEANING = ("extra options", "hypertile", "refiner", "sampler", "seed")
TXT2IMG = WITHOUT_MEANING
IMG2IMG = (*WITHOUT_MEANING[:2], SOFT_INPAINTING, *WITHOUT_MEANING[2:])


def check(
    scripts: Mapping[str, Any],
    *,
    img2img: bool,
    selectable: Iterable[str],
    modules: Iterable[ConditioningModule] = (),
) -> None:
    """Refuse names that stand for nothing here (422, as upstream)."""
    selectable = {name.casefold() for name in selectable}
    known = {*(IMG2IMG if img2img else TXT2IMG), *(module.name.casefold() for module in modules)}
    for name in scripts:
        if name.casefold() in selectable:
            raise UpstreamError(422, "Cannot have a selectable script in the always on scripts params")
        if name.casefold() not in known:
            raise UpstreamError(422, f"Always on script {name} not found")


def module_uses(
    scripts: Mapping[str, Any], modules: Iterable[ConditioningModule], keep: Callable[[str], str]
) -> tuple[ModuleUse, ...]:
    """The uses of conditioning modules; ``keep`` stores a picture as clients send it and answers its SHA-256.

    Raises RequestError for arguments that are none.
    """
    uses = []
    for module in modules:
        given = arguments(scripts, module.name.casefold())
        for options in _meant(module, given) if given else ():
            if not isinstance(options, Mapping):
                raise RequestError(f"The arguments of {module.name} must be objects with its options by name.")
            uses.append(ModuleUse(name=module.name, options=with_pictures(module.options, options, keep)))
    return tuple(uses)


def told_modules(infotext: str, scripts: Mapping[str, Any], plugins: Plugins) -> tuple[ModuleUse, ...]:
    """The uses of conditioning modules that a body's ``infotext`` tells of, but of those that its scripts name."""
    if not infotext:
        return ()
    named = {name.casefold() for name in scripts}
    uses, _ = module_texts.read(dict(parse(infotext).fields), plugins.conditioning_modules, plugins.ask_module)
    return tuple(use for use in uses if use.name.casefold() not in named)


def _meant(module: ConditioningModule, given: list[Any]) -> Sequence[Any]:
    """What a module makes of its arguments.  Raises ExtensionError when it fails."""
    own = getattr(module, "always_on", None)
    if own is None:
        return given
    try:
        answer = own(given)
    except WebUIError:
        raise
    except Exception as error:
        raise ExtensionError(f"always_on of {module.name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(answer, list | tuple):
        raise ExtensionError(f"always_on of {module.name} returned a {type(answer).__name__}, expected a list.")
    return answer


def arguments(scripts: Mapping[str, Any], wanted: str) -> list[Any]:
    """The positional arguments of a script, possibly fewer than it has."""
    for name, script in scripts.items():
        if name.casefold() == wanted:
            found = script.get("args", []) if isinstance(script, Mapping) else None
            if not isinstance(found, list):
                raise RequestError(f'The always-on script {name} must be an object with a list "args".')
            return found
    return []


def soft_inpainting(scripts: Mapping[str, Any]) -> SoftInpainting | None:
    """The options of soft inpainting when its first argument switches it on; what is left out is its default."""
    given = arguments(scripts, SOFT_INPAINTING)
    if not given or not given[0]:
        return None
    names = [field.name for field in fields(SoftInpainting)]
    return SoftInpainting(**dict(zip(names, given[1:], strict=False)))
