"""Ways to guide a picture beyond the CFG scale, each in a file of its own; README.md tells what each is for.

All but CFG++ are conditioning modules: an options record and a ``prepare`` that returns what it adds to the calls of
the network, a guide (what becomes of the answers) or openings (what happens inside).  CFG++ is a way to take a step,
and therefore samplers.
"""

from __future__ import annotations

from webui.conditioning import ConditioningModule
from webui.hooks import hookimpl
from webui.samplers import Sampler

from . import cfgpp
from .dynamic_thresholding import DynamicThresholding
from .freeu import FreeU
from .perturbed_attention import PerturbedAttention
from .rescale import Rescale
from .self_attention import SelfAttention

__version__ = "1.0"


@hookimpl
def register_conditioning_modules() -> list[ConditioningModule]:
    """The modules of this folder."""
    return [FreeU(), PerturbedAttention(), SelfAttention(), DynamicThresholding(), Rescale()]


@hookimpl
def register_samplers() -> list[Sampler]:
    """The CFG++ samplers."""
    return cfgpp.SAMPLERS
