"""The conditioning module: its options, and the contribution that looks on and changes nothing.  No torch on import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webui.conditioning import option

if TYPE_CHECKING:
    from webui.conditioning import Contribution, Pictures
    from webui.model import Model
    from webui.request import GenerationRequest

NAME = "xray"
MOST_FRAMES = 12
VAE, QUICK = "VAE", "Quick"
DECODERS = (VAE, QUICK)


@dataclass(frozen=True, kw_only=True)
class Options:
    """``frames`` of the way are kept as pictures; ``decoder`` makes them of latents: the VAE, or one matrix.

    ``source`` is the digest of the pixels that are made again, for the tab to compare.
    """

    frames: int = option(8, "X-ray pictures", low=2, high=MOST_FRAMES, step=1)
    decoder: str = option(VAE, "X-ray decoder", choices=DECODERS)
    source: str = option("", "X-ray of", shown=False)


class XRay:
    """Sees each call of one walk, and writes it down.  ``observes``: it is no part of the picture's recipe."""

    name = NAME
    label = "X-ray"
    order = 900
    options = Options
    observes = True

    def prepare(self, options: Options, model: Model, request: GenerationRequest, pictures: Pictures) -> Contribution:
        """The contribution for one model of a job."""
        from webui.conditioning import Contribution

        from .recorder import Recorder

        frames = min(max(int(options.frames), 2), MOST_FRAMES)
        assert pictures.scratch is not None  # a walk belongs to a job
        recorder = Recorder(model, request, pictures.scratch, frames, by_vae=options.decoder != QUICK)
        return Contribution(recorder.openings, guide=recorder.see, begin=recorder.begin)
