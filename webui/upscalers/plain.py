"""None, Lanczos and Nearest: Pillow's filters, as AUTOMATIC1111 ``modules/upscaler.py`` uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image

from webui.hooks import hookimpl
from webui.upscalers import NONE, Upscaler, Work, resampled

if TYPE_CHECKING:
    from webui.result import Pixels


def none(pixels: Pixels, scale: float, work: Work) -> Pixels:
    """The picture itself; whoever asked brings it to the size by Lanczos."""
    return pixels


def lanczos(pixels: Pixels, scale: float, work: Work) -> Pixels:
    """The picture enlarged by the Lanczos filter."""
    return resampled(pixels, scale, Image.Resampling.LANCZOS)


def nearest(pixels: Pixels, scale: float, work: Work) -> Pixels:
    """The picture with larger pixels."""
    return resampled(pixels, scale, Image.Resampling.NEAREST)


@hookimpl
def register_upscalers() -> Sequence[Upscaler]:
    """None, Lanczos and Nearest."""
    return [
        Upscaler(name=NONE, enlarge=none),
        Upscaler(name="Lanczos", enlarge=lanczos),
        Upscaler(name="Nearest", enlarge=nearest),
    ]
