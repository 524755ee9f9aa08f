"""Edges, one pixel wide and white on black: Canny 1986, doi:10.1109/TPAMI.1986.4767851, as OpenCV computes it.

ControlNets and T2I-Adapters for "canny" were trained with OpenCV's edges, so only those will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from webui.errors import RequestError, unknown_name
from webui.hooks import hookimpl
from webui.preprocessors import Preprocessor, Slider

if TYPE_CHECKING:
    from webui.result import Pixels

DEFAULTS = {"low_threshold": 100, "high_threshold": 200}
"""Gradients (sums of absolute Sobel differences) from which on a place continues an edge, and begins one."""
MAX_THRESHOLD = 2040  # the largest such sum of 8-bit levels
SLIDER_END = 256
"""Where the sliders end, as in sd-webui-controlnet; hardly any picture has edges beyond."""


def canny(pixels: Pixels, options: Mapping[str, Any]) -> Pixels:
    """The edges of a picture, (H, W, 3) uint8, 0 or 255.  Options as in :data:`DEFAULTS`; raises RequestError."""
    import cv2
    import numpy as np

    values = {**DEFAULTS, **options}
    for name, value in values.items():
        if name not in DEFAULTS:
            raise unknown_name("option of canny", name, DEFAULTS)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_THRESHOLD:
            raise RequestError(f"canny's {name} is {value!r}; it must be a number from 0 to {MAX_THRESHOLD}.")
    edges = cv2.Canny(np.ascontiguousarray(pixels), values["low_threshold"], values["high_threshold"])
    return np.repeat(edges[:, :, None], 3, axis=2).astype(np.uint8)


@hookimpl
def register_preprocessors() -> list[Preprocessor]:
    """Canny."""
    low, high = (
        Slider(key=key, label=f"{key.split('_')[0].capitalize()} threshold", default=default, low=0, high=SLIDER_END)
        for key, default in DEFAULTS.items()
    )
    return [Preprocessor(name="canny", run=canny, sliders=(low, high), scaled=True, tags=("Canny",))]
