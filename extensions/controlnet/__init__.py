"""ControlNet, Control-LoRA, T2I-Adapter, IP-Adapter and reference-only, with their preprocessors.

An extension like any other: everything goes through the hooks of ``webui/hooks.py`` and public classes of ``webui``.
The data flow is that of the files: ``unit`` (what is asked for) -> ``preprocessors`` and ``fitting`` (its control
picture) -> ``networks`` (its model file) -> ``module`` (what the UNet's openings are filled with).  Nothing here
imports torch at its top but what only the worker process reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webui.api.extending import ApiRoutes
from webui.conditioning import ConditioningModule
from webui.hooks import hookimpl
from webui.preprocessors import Preprocessor

from .module import ControlNetModule
from .network_preprocessors import network_preprocessors
from .preprocessors import preprocessors

if TYPE_CHECKING:
    from fastapi import APIRouter

    from webui.engine.access import Access

__version__ = "1.0.0"


@hookimpl
def register_preprocessors() -> list[Preprocessor]:
    """The control pictures that need no weights, and those whose weights people bring; canny comes with the program."""
    return [*preprocessors(), *network_preprocessors()]


@hookimpl
def register_conditioning_modules() -> list[ConditioningModule]:
    """The units."""
    return [ControlNetModule()]


@hookimpl
def register_api_routes() -> list[ApiRoutes]:
    """``/controlnet/*``."""
    return [ApiRoutes(prefix="/controlnet", build=_routes)]


def _routes(access: Access) -> APIRouter:
    from .api import build

    return build(access)
