"""Dynamic thresholding ("CFG scale fix"): the detail of a high CFG scale with the range of values of a lower one.

Saharia et al. 2022 (arXiv:2205.11487), section 2.3, clamp a clean picture to a percentile of its own values and divide
by it.  Latents have no range that is given, so, as in mcmonkeyprojects/sd-dynamic-thresholding (``dynthres_core.py``),
the range is that which a lower scale, the mimic scale, would have had; names and meanings of the options are those of
that extension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from webui.conditioning import Contribution, Pictures
from webui.option_boxes import option
from webui.request import GenerationRequest

if TYPE_CHECKING:
    from torch import Tensor

    from webui.diffusion.guidance import Guiding
    from webui.model import Model


class Mode(StrEnum):
    """How a scale changes over the sampling."""

    CONSTANT = "Constant"
    LINEAR_DOWN = "Linear Down"
    COSINE_DOWN = "Cosine Down"
    HALF_COSINE_DOWN = "Half Cosine Down"
    LINEAR_UP = "Linear Up"
    COSINE_UP = "Cosine Up"
    HALF_COSINE_UP = "Half Cosine Up"
    POWER_UP = "Power Up"
    POWER_DOWN = "Power Down"
    LINEAR_REPEATING = "Linear Repeating"
    COSINE_REPEATING = "Cosine Repeating"
    SAWTOOTH = "Sawtooth"


class Startpoint(StrEnum):
    """Whether values are scaled around their mean or around 0."""

    MEAN = "MEAN"
    ZERO = "ZERO"


class Variability(StrEnum):
    """What measures the range: the largest distance (a percentile of them), or the standard deviation."""

    AD = "AD"
    STD = "STD"


@dataclass(frozen=True, kw_only=True)
class Options:
    """``percentile`` is that of the values beyond which they are clamped; ``phi`` how much of the result is taken."""

    mimic_scale: float = option(7.0, "Mimic scale", low=0, high=100, step=0.5)
    percentile: float = option(100.0, "Threshold percentile", low=0, high=100, step=0.05, beside=True)
    mimic_mode: str = option(Mode.CONSTANT.value, "Mimic mode", choices=tuple(Mode))
    mimic_scale_min: float = option(0.0, "Mimic scale minimum", low=0, high=100, step=0.5, beside=True)
    cfg_mode: str = option(Mode.CONSTANT.value, "CFG mode", choices=tuple(Mode))
    cfg_scale_min: float = option(0.0, "CFG scale minimum", low=0, high=100, step=0.5, beside=True)
    scheduler_value: float = option(4.0, "Scheduler value", low=0, high=100, step=0.1, hint="Power, or repetitions.")
    separate_channels: bool = option(True, "Separate feature channels")
    startpoint: str = option(Startpoint.MEAN.value, "Scaling startpoint", choices=tuple(Startpoint))
    variability: str = option(Variability.AD.value, "Variability measure", choices=tuple(Variability), beside=True)
    phi: float = option(1.0, "Interpolate phi", low=0, high=1, step=0.01)

    @property
    def is_neutral(self) -> bool:
        """Whether they leave plain guidance as it is."""
        return self.phi == 0 and self.cfg_mode == Mode.CONSTANT


def factor(mode: str, done: float, value: float) -> float:
    """What a scale above its minimum is multiplied by when ``done`` (0 to 1) of the sampling is done."""
    half, full = done * math.pi / 2, done * math.tau
    factors: Mapping[str, Callable[[], float]] = {
        Mode.CONSTANT: lambda: 1.0,
        Mode.LINEAR_DOWN: lambda: 1.0 - done,
        Mode.COSINE_DOWN: lambda: math.cos(half),
        Mode.HALF_COSINE_DOWN: lambda: math.cos(done),
        Mode.LINEAR_UP: lambda: done,
        Mode.COSINE_UP: lambda: 1.0 - math.cos(half),
        Mode.HALF_COSINE_UP: lambda: 1.0 - math.cos(done),
        Mode.POWER_UP: lambda: done**value,
        Mode.POWER_DOWN: lambda: 1.0 - done**value,
        Mode.LINEAR_REPEATING: lambda: abs(1.0 - 2.0 * ((done * value) % 1.0)),
        Mode.COSINE_REPEATING: lambda: math.cos(full * value) / 2 + 0.5,
        Mode.SAWTOOTH: lambda: (done * value) % 1.0,
    }
    return factors[mode]()


def scheduled(scale: float, mode: str, minimum: float, done: float, value: float) -> float:
    """The scale at a point of the sampling; Constant ignores the minimum."""
    return minimum + (scale - minimum) * factor(mode, done, value)


def thresholded(guided: Tensor, mimic: Tensor, options: Options) -> Tensor:
    """``guided`` (B, C, h, w) with the range of ``mimic``, for each picture, and channel where they are separate.

    With MEAN and AD: s = max(range of mimic, percentile of guided), clamp(guided, -s, s) / s * range of mimic, all
    around the means of ``guided``; where the mimic's range is 1 that is the dynamic thresholding of Imagen.
    """
    import torch

    flat, target = guided.flatten(2), mimic.flatten(2)
    mean = flat.mean(dim=2, keepdim=True)
    centred, wanted = flat - mean, target - target.mean(dim=2, keepdim=True)
    if options.variability == Variability.STD:
        found, bound = _over(centred, options, "std"), _over(wanted, options, "std")
    else:
        found, bound = _over(centred, options, options.percentile / 100), _over(wanted, options, 1.0)
    if options.startpoint == Startpoint.ZERO:
        result = flat * (bound / found)
    elif options.variability == Variability.STD:
        result = centred / found * bound + mean
    else:
        limit = torch.maximum(bound, found)
        result = centred.clamp(-limit, limit) / limit * bound + mean
    return result.view_as(guided)


def _over(values: Tensor, options: Options, measure: float | str) -> Tensor:
    """The deviation ("std") of values (B, C, N), or a quantile of their sizes, (B, C or 1, 1); never 0."""
    import torch

    kept = values if options.separate_channels else values.flatten(1)[:, None]
    if isinstance(measure, str):
        found = kept.std(dim=2, keepdim=True)
    else:
        found = kept.abs().quantile(measure, dim=2, keepdim=True)
    return found.clamp_min(torch.finfo(found.dtype).tiny)


def dynamic_thresholding(guiding: Guiding, options: Options, share: float) -> Tensor:
    """The guided clean latent with the range of the mimic scale; ``share`` is that of the scales that guiding has.

    Scales are changed by adding to ``guided`` what lacks to them, so that what other guides did to it stays.
    """
    done = min(guiding.call / max(guiding.calls - 1, 1), 1.0)
    value, cfg = options.scheduler_value, guiding.cfg_scale
    mimic_scale = scheduled(options.mimic_scale, options.mimic_mode, options.mimic_scale_min, done, value) * share
    pull = guiding.cond - guiding.uncond
    guided = guiding.guided
    if options.cfg_mode != Mode.CONSTANT:
        wanted = scheduled(cfg / share, options.cfg_mode, options.cfg_scale_min, done, value) * share
        guided = guided + pull * (wanted - cfg)
    mimic = guiding.guided + pull * (mimic_scale - cfg)
    result = thresholded(guided, mimic, options)
    return result if options.phi == 1 else result * options.phi + guided * (1 - options.phi)


class DynamicThresholding:
    """The conditioning module."""

    name = "Dynamic thresholding"
    order = 240
    options: type = Options

    def prepare(self, options: Options, model: Model, request: GenerationRequest, pictures: Pictures) -> Contribution:
        """A guide; nothing at all for a phi of 0 with a constant CFG scale."""
        from webui.networks.unet import Openings

        if options.is_neutral:
            return Contribution(Openings())
        asked = request.sampling.cfg_scale

        def guide(guiding: Guiding) -> Tensor:
            share = guiding.cfg_scale / asked if asked else 1.0  # samplers with a range of their own divide the scale
            return dynamic_thresholding(guiding, options, share)

        return Contribution(Openings(), guide=guide)
