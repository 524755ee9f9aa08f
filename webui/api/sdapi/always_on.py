"""``alwayson_scripts``: which names are taken, and what those that change pixels mean for the request.

Upstream runs "Sampler", "Seed" and "Refiner" for its own page alone, "Extra options" only shows settings, and
"Hypertile" reads settings: their arguments are taken and mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from webui.api.sdapi.errors import UpstreamError
from webui.errors import RequestError
from webui.request import SoftInpainting

SOFT_INPAINTING = "soft inpainting"
WITHOUT_MEANING = ("extra options", "hypertile", "refiner", "sampler", "seed")
TXT2IMG = WITHOUT_MEANING
IMG2IMG = (*WITHOUT_MEANING[:2], SOFT_INPAINTING, *WITHOUT_MEANING[2:])


def check(scripts: Mapping[str, Any], *, img2img: bool, selectable: Iterable[str]) -> None:
    """Refuse names that stand for nothing here (422, as upstream)."""
    selectable = {name.casefold() for name in selectable}
    for name in scripts:
        if name.casefold() in selectable:
            raise UpstreamError(422, "Cannot have a selectable script in the always on scripts params")
        if name.casefold() not in (IMG2IMG if img2img else TXT2IMG):
            raise UpstreamError(422, f"Always on script {name} not found")


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
