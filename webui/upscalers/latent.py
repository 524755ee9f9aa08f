"""The latent upscalers of the second pass, as AUTOMATIC1111 ``modules/shared_items.py`` lists them.

Each is ``torch.nn.functional.interpolate`` with one mode; corners are not aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.upscalers import Upscaler

if TYPE_CHECKING:
    from torch import Tensor

MODES = {
    "Latent": ("bilinear", False),
    "Latent (antialiased)": ("bilinear", True),
    "Latent (bicubic)": ("bicubic", False),
    "Latent (bicubic antialiased)": ("bicubic", True),
    "Latent (nearest)": ("nearest", False),
    "Latent (nearest-exact)": ("nearest-exact", False),
}
"""Interpolation mode, and whether it is antialiased; that changes the bicubic kernel (a = -0.5 instead of -0.75)."""


def interpolated(latent: Tensor, height: int, width: int, *, mode: str, antialias: bool) -> Tensor:
    """The latent (B, C, height, width)."""
    from torch.nn.functional import interpolate

    return interpolate(latent, size=(height, width), mode=mode, antialias=antialias)


@hookimpl
def register_upscalers() -> Sequence[Upscaler]:
    """The six modes; the first answers to "Latent" and is the default of the second pass."""
    return [
        Upscaler(name=name, scale=2.0, resize_latent=partial(interpolated, mode=mode, antialias=antialias))
        for name, (mode, antialias) in MODES.items()
    ]
