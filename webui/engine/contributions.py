"""What a conditioning module contributes, looked at before it is used: a module of an extension may return anything.

Called by the runner once for each use of a module and each model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from webui.conditioning import Contribution
from webui.diffusion.guidance import Guide, Guiding, NetworkCall
from webui.errors import ExtensionError
from webui.networks.unet import Openings


def checked(contribution: object, module: str) -> Contribution:
    """The contribution, whose functions' answers are looked at as well.

    Raises ExtensionError, which names the ``module``, for what is none; so do the functions for what cannot be used.
    """
    if not isinstance(contribution, Contribution):
        raise _other(f"{module} prepared", contribution, "a Contribution")
    openings, guide = contribution.openings, contribution.guide
    if callable(openings):
        contribution = replace(contribution, openings=_checked_openings(openings, module))
    elif not isinstance(openings, Openings):
        raise _other(f"{module} contributes", openings, "Openings")
    return contribution if guide is None else replace(contribution, guide=_checked_guide(guide, module))


def _checked_openings(openings: Callable[[NetworkCall], Openings], module: str) -> Callable[[NetworkCall], Openings]:
    def fill(call: NetworkCall) -> Openings:
        found: object = openings(call)
        if not isinstance(found, Openings):
            raise _other(f"{module} fills a call with", found, "Openings")
        return found

    return fill


def _checked_guide(guide: Guide, module: str) -> Guide:
    def lead(guiding: Guiding) -> Tensor:
        found: object = guide(guiding)
        wanted = guiding.guided
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            raise _other(f"{module} guides to", found, _kind(wanted))
        return found

    return lead


def _other(doing: str, found: object, wanted: str) -> ExtensionError:
    return ExtensionError(f"The module {doing} {_kind(found)}, expected {wanted}; leave the module out of the request.")


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a Tensor of {value.dtype}, {tuple(value.shape)}"
    return "nothing" if value is None else f"a {type(value).__name__}"
