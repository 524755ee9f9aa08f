"""Soft inpainting's pixels: where a painted picture changed, the painted pixels are taken, elsewhere the original's.

As AUTOMATIC1111 ``extensions-builtin/soft-inpainting/scripts/soft_inpainting.py`` (apply_adaptive_masks): the distance
between the latent before and after, filtered, against a threshold.  Numpy; the latents' side is in
``pipeline/soft_inpainting.py``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from webui.images.masks import MaskPixels, Plan
from webui.images.resize import resize
from webui.request import ResizeMode, SoftInpainting

Numbers = NDArray[np.float64]

REACH = 2
DEVIATION = 1.5
SMOOTHING = 4
"""Radius in pixels of the blur of the finished mask."""


def changed_mask(distance: Numbers, painted: Numbers, options: SoftInpainting, planned: Plan) -> MaskPixels:
    """The mask (H, W) of ``planned.original``: 255 where the painted pixels are taken, 0 where the original's are.

    ``distance`` (h, w) is how far each place of the latent moved, ``painted`` (h, w) the latent's mask, 0 to 1.
    """
    levels = (255.0 * changed(distance, painted, options)).astype(np.uint8)
    height, width = planned.mask.shape
    mask = np.asarray(
        Image.fromarray(resize(levels, width, height, ResizeMode.FILL)).filter(ImageFilter.GaussianBlur(SMOOTHING))
    )
    if planned.box is None:
        return mask
    box = planned.box
    whole = np.zeros(planned.original.shape[:2], np.uint8)
    whole[box.top : box.bottom, box.left : box.right] = resize(
        mask, box.right - box.left, box.bottom - box.top, ResizeMode.CROP
    )
    return whole


def changed(distance: Numbers, painted: Numbers, options: SoftInpainting) -> Numbers:
    """How much of each place (h, w) is taken from the painted picture, 0 to 1."""
    filtered = weighted_window(weighted_window(distance, 0.9, 1.0), 0.25, 0.75)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = filtered / (options.difference_threshold * _leniency(painted, options))
        kept = 1 / (1 + ratio**options.difference_contrast)
    kept = np.nan_to_num(kept, nan=1.0)  # nothing moved, and no movement is allowed
    return 1 - smootherstep(kept)


def smootherstep(x: Numbers) -> Numbers:
    """6 x^5 - 15 x^4 + 10 x^3: from 0 to 1 with two derivatives that end in 0 (Perlin 2002, "Improving Noise")."""
    return x * x * x * (x * (6 * x - 15) + 10)


def weighted_window(values: Numbers, low: float, high: float) -> Numbers:
    """Around each place (h, w) the weighted mean of the values between two shares of the weight, in rising order.

    Weights are those of :func:`kernel`; places outside have none.  A window narrower than one unit of weight is widened
    to one, and moved where it stands over.
    """
    side = 2 * REACH + 1
    padded = np.pad(values.astype(np.float64), REACH, constant_values=np.inf)
    around = np.lib.stride_tricks.sliding_window_view(padded, (side, side)).reshape(*values.shape, side * side)
    order = np.argsort(around, axis=-1, kind="stable")
    around = np.take_along_axis(around, order, axis=-1)
    weights = np.where(np.isinf(around), 0.0, kernel().ravel()[order])
    ends = weights.cumsum(axis=-1)
    total = ends[..., -1:]
    start, stop = _at_least_one(total * low, total * high, total)
    share = np.clip(np.minimum(stop, ends) - np.maximum(start, ends - weights), 0, None)
    result: Numbers = (np.where(share > 0, around, 0.0) * share).sum(axis=-1) / share.sum(axis=-1)
    return result


def kernel() -> Numbers:
    """(5, 5): exp(-d**2 / 1.5**2), lowered so that it is 0 at distance 3 and still 1 in the middle."""
    squares = np.arange(-REACH, REACH + 1) ** 2
    gauss = np.exp(-(squares[:, None] + squares) / DEVIATION**2)
    zero = math.exp(-((REACH + 1) ** 2) / DEVIATION**2)
    weights: Numbers = np.maximum((gauss - zero) / (1 - zero), 0.0)
    return weights


def _at_least_one(start: Numbers, stop: Numbers, total: Numbers) -> tuple[Numbers, Numbers]:
    """The window, widened about its middle to a width of 1 and moved to stay from 0 to ``total``."""
    narrow = stop - start < 1
    middle = (start + stop) / 2
    begin = np.maximum(np.minimum(middle - 0.5, total - 1), 0)
    return np.where(narrow, begin, start), np.where(narrow, begin + 1, stop)


def _leniency(painted: Numbers, options: SoftInpainting) -> Numbers:
    """What the threshold is multiplied by: 1, or by the mask's influence less where it paints and more where not."""
    by_mask = 1 - np.clip(painted, 0, 1) ** (options.preservation_strength / 2)
    share = 0.5 * (1 - options.mask_influence) + by_mask * options.mask_influence
    result: Numbers = share / (1.00001 - share)
    return result
