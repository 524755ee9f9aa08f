"""What a conditioning module or a kind of networks contributes, looked at before it is used: code of an extension may
return anything.

Called by the runner once for each use of a module, or kind of tags, and each model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import UnionType
from typing import Any

from torch import Tensor

from webui.conditioning import Contribution
from webui.diffusion.guidance import Guide, Guiding, NetworkCall
from webui.errors import ExtensionError
from webui.networks.unet import Openings

Wrong = Callable[[str, object, str], ExtensionError]
"""The error for what was done, what was found and what is wanted."""


def checked(contribution: object, who: str, way_out: str) -> Contribution:
    """The contribution, whose functions' answers are looked at as well.

    Raises ExtensionError, in which ``who`` made it and the ``way_out`` are said, for what is none; so do the functions
    for what cannot be used.
    """

    def wrong(doing: str, found: object, wanted: str) -> ExtensionError:
        return ExtensionError(f"{who} {doing} {_kind(found)}, expected {wanted}; {way_out}.")

    if not isinstance(contribution, Contribution):
        raise wrong("prepared", contribution, "a Contribution")
    _check_plain_parts(contribution, wrong)
    openings, guide = contribution.openings, contribution.guide
    if callable(openings):
        contribution = replace(contribution, openings=_checked_openings(openings, wrong))
    elif not isinstance(openings, Openings):
        raise wrong("contributes", openings, "Openings")
    return contribution if guide is None else replace(contribution, guide=_checked_guide(guide, wrong))


def _check_plain_parts(contribution: Any, wrong: Wrong) -> None:
    for name in ("guide", "begin"):
        part = getattr(contribution, name)
        if part is not None and not callable(part):
            raise wrong(f"has for its {name}", part, "a function")
    levels, problems = contribution.sigma_range, contribution.problems
    if not _is_row(levels, int | float) or len(levels) != 2:
        raise wrong("has for its sigma_range", levels, "two numbers")
    if not _is_row(problems, str):
        raise wrong("has for its problems", problems, "a tuple of texts")


def _is_row(values: object, kind: type | UnionType) -> bool:
    return isinstance(values, tuple | list) and all(isinstance(value, kind) for value in values)


def _checked_openings(openings: Callable[[NetworkCall], Openings], wrong: Wrong) -> Callable[[NetworkCall], Openings]:
    def fill(call: NetworkCall) -> Openings:
        found: object = openings(call)
        if not isinstance(found, Openings):
            raise wrong("fills a call with", found, "Openings")
        return found

    return fill


def _checked_guide(guide: Guide, wrong: Wrong) -> Guide:
    def lead(guiding: Guiding) -> Tensor:
        found: object = guide(guiding)
        wanted = guiding.guided
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            raise wrong("guides to", found, _kind(wanted))
        return found

    return lead


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a Tensor of {value.dtype}, {tuple(value.shape)}"
    return "nothing" if value is None else f"a {type(value).__name__}"
