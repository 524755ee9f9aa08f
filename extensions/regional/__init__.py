"""Prompts for parts of the picture.

The data flow is that of the files: ``prompts`` (which texts there are) -> ``grid`` or ``painting`` (where each holds)
-> ``shares`` (how much each counts at a place) -> ``coupling`` (how they enter the calls of the network); ``module``
does all of it, ``infotext`` writes and reads it as Regional Prompter does.
"""

from __future__ import annotations

from webui.conditioning import ConditioningModule
from webui.hooks import hookimpl

from .module import Regional

__version__ = "1.0"


@hookimpl
def register_conditioning_modules() -> list[ConditioningModule]:
    """Regional."""
    return [Regional()]
