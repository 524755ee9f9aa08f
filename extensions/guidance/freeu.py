"""FreeU: on the way up, more of what the network made of the picture and less of the coarsest part of the skips.

Si et al. 2023 (arXiv:2309.11497), the second version of the authors' code (ChenyangSi/FreeU): the backbone's gain
follows its mean over the channels.  Costs nothing worth mentioning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webui.conditioning import Contribution, Pictures
from webui.option_boxes import option
from webui.request import GenerationRequest

from .span import check_span, noise_levels

if TYPE_CHECKING:
    from torch import Tensor

    from webui.model import Model


@dataclass(frozen=True, kw_only=True)
class Options:
    """Gains of the backbone (``b``) and of the skips' lowest frequencies (``s``); 1 changes nothing.

    1 is the stage with four times the channels of the first level (1280 in SD1), 2 that with twice as many (640).
    """

    b1: float = option(1.01, "B1", low=0, high=2, step=0.01)
    b2: float = option(1.02, "B2", low=0, high=2, step=0.01, beside=True)
    s1: float = option(0.99, "S1", low=0, high=4, step=0.01)
    s2: float = option(0.95, "S2", low=0, high=4, step=0.01, beside=True)
    start: float = option(0.0, "Start", low=0, high=1, step=0.01)
    end: float = option(1.0, "End", low=0, high=1, step=0.01, beside=True)

    def __post_init__(self) -> None:
        check_span(FreeU.name, self.start, self.end)


def strengthened(backbone: Tensor, gain: float) -> Tensor:
    """``backbone`` (B, C, h, w), its first half of the channels times 1 to ``gain``, most where their mean is highest.

    The second version's (gain - 1) * (mean - min) / (max - min) + 1, for each picture.
    """
    import torch

    mean = backbone.float().mean(dim=1, keepdim=True)
    low, high = mean.amin(dim=(2, 3), keepdim=True), mean.amax(dim=(2, 3), keepdim=True)
    alpha = (gain - 1) * (mean - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny) + 1
    half = backbone.shape[1] // 2
    return torch.cat([backbone[:, :half] * alpha.to(backbone.dtype), backbone[:, half:]], dim=1)


def softened(skip: Tensor, gain: float) -> Tensor:
    """``skip`` (B, C, h, w), its frequencies 0 and -1 along each side times ``gain``.

    These four are what the authors' mask of threshold 1 holds; of the result the real part is taken.
    """
    import torch

    numbers = [torch.fft.fftfreq(size, 1 / size, device=skip.device).round() for size in skip.shape[2:]]
    is_low = [(number == 0) | (number == -1) for number in numbers]
    low = is_low[0][:, None] & is_low[1][None, :]
    spectrum = torch.fft.fft2(skip.float())
    filtered: Tensor = torch.fft.ifft2(torch.where(low, spectrum * gain, spectrum)).real.to(skip.dtype)
    return filtered


@dataclass(frozen=True)
class Change:
    """What FreeU does beside the skips; ``gains`` are (b, s) by the number of channels that come up."""

    gains: Mapping[int, tuple[float, float]]

    def __call__(self, number: int, rising: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """Both, changed where their stage has gains other than 1."""
        b, s = self.gains.get(rising.shape[1], (1.0, 1.0))
        return rising if b == 1 else strengthened(rising, b), skip if s == 1 else softened(skip, s)


class FreeU:
    """The conditioning module."""

    name = "FreeU"
    order = 210
    options: type = Options

    def prepare(self, options: Options, model: Model, request: GenerationRequest, pictures: Pictures) -> Contribution:
        """A change beside the skips; nothing at all when every gain is 1."""
        from webui.networks.unet import Openings

        if (options.b1, options.b2, options.s1, options.s2) == (1, 1, 1, 1):
            return Contribution(Openings())
        channels = model.unet.config.model_channels
        change = Change({4 * channels: (options.b1, options.s1), 2 * channels: (options.b2, options.s2)})
        levels = noise_levels(options.start, options.end, model.noise_table)
        return Contribution(Openings(rising_changes=(change,)), levels)
