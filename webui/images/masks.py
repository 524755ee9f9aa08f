"""Masks: which part of a picture is painted anew, how softly, and how the old part is kept.

A mask is (H, W) uint8; 255 is painted anew, 0 is kept.  :func:`plan` does all that inpainting needs before the network,
:func:`paste_over` what it needs afterwards; the rest are their steps.  Facts from AUTOMATIC1111
(``modules/processing.py``, ``modules/masking.py``), to the same 8-bit values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from webui.errors import RequestError
from webui.images.pixels import open_picture
from webui.images.resize import Enlarge, lanczos, resize
from webui.request import InpaintArea, Mask, MaskedContent, MaskMode, Part, ResizeMode, Size
from webui.result import Pixels

MaskPixels = NDArray[np.uint8]
"""(H, W) uint8."""


class Box(NamedTuple):
    """A rectangle of pixels; ``right`` and ``bottom`` are outside."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """What an inpainting run works on.

    ``start`` (H, W, 3) is encoded, ``mask`` (H, W) says where it is painted anew, both of the size asked for (in the
    latent resize mode ``start`` keeps its own size).
    ``original`` with ``overlay`` of the same size is laid over the result; ``box`` is the part of the original that
    the network sees, None for all of it.  ``latent`` (H, W) says where the latent is painted anew, None: as ``mask``.
    """

    start: Pixels
    mask: MaskPixels
    original: Pixels
    overlay: MaskPixels
    box: Box | None
    latent: MaskPixels | None = None

    @property
    def painted(self) -> MaskPixels:
        """Where the latent is painted anew (H, W)."""
        return self.mask if self.latent is None else self.latent


def is_rounded(options: Mask) -> bool:
    """Whether a mask's latent is painted anew wholly or not at all; soft inpainting lives from what lies between."""
    return options.round and options.soft is None


def read_mask(data: bytes, *, rounded: bool = True) -> MaskPixels:
    """A mask from a picture file: light is painted anew.

    A picture with transparent parts is a drawing on an empty sheet: there the opaque parts (alpha above 128; without
    rounding the alpha itself) are the mask.  Raises PictureError.
    """
    image = open_picture(data)
    if image.mode == "RGBA":
        alpha = np.array(image.getchannel("A"))
        if alpha.min() < 255:
            return np.where(alpha > 128, 255, 0).astype(np.uint8) if rounded else alpha
    return np.array(image.convert("L"))


def plan(
    original: Pixels,
    mask: MaskPixels,
    options: Mask,
    size: Size,
    resize_mode: ResizeMode,
    enlarge: Enlarge = lanczos,
    latent: MaskPixels | None = None,
) -> Plan | None:
    """The plan for painting ``mask`` of ``original`` anew, both as read; ``enlarge`` as :func:`resize` takes it.

    ``latent`` is the latent's own mask, as read.  With "Only masked" the result has the original's size, else
    ``size``.  None when "Only masked" meets an empty mask: there is no part to enlarge, and AUTOMATIC1111 then does
    img2img of the whole picture.
    """
    if options.mode is MaskMode.NOT_MASKED:
        mask = invert(mask)
    mask = blur(mask, options.blur, options.blur if options.blur_y is None else options.blur_y)
    only_masked = options.area is InpaintArea.ONLY_MASKED
    if only_masked and not mask.any():
        return None
    planned = (_plan_box if only_masked else _plan_whole)(original, mask, options, size, resize_mode, enlarge)
    if latent is not None:
        planned = replace(planned, latent=_as_seen(latent, original, planned, size, resize_mode))
    if options.content is MaskedContent.ORIGINAL:
        return planned
    return replace(planned, start=fill(planned.start, planned.painted))


def _as_seen(mask: MaskPixels, original: Pixels, planned: Plan, size: Size, resize_mode: ResizeMode) -> MaskPixels:
    """A mask of the original as the network sees it: its box, at the size asked for."""
    box = planned.box
    if box is None:
        return resize(mask, size.width, size.height, resize_mode)
    height, width = original.shape[:2]
    mask = mask if mask.shape == (height, width) else resize(mask, width, height)
    return resize(mask[box.top : box.bottom, box.left : box.right], size.width, size.height, ResizeMode.FILL)


def _plan_whole(
    original: Pixels, mask: MaskPixels, options: Mask, size: Size, resize_mode: ResizeMode, enlarge: Enlarge
) -> Plan:
    start = resize(original, size.width, size.height, resize_mode, enlarge)
    mask = resize(mask, size.width, size.height, resize_mode)
    # In the latent mode the start keeps its own size, and the original that is laid over the result must not.
    kept = resize(start, size.width, size.height)
    return Plan(start=start, mask=mask, original=kept, overlay=overlay_mask(mask), box=None)


def _plan_box(
    original: Pixels, mask: MaskPixels, options: Mask, size: Size, resize_mode: ResizeMode, enlarge: Enlarge
) -> Plan:
    height, width = original.shape[:2]
    if mask.shape != (height, width):
        mask = resize(mask, width, height)
    box = crop_box(mask, options.padding, size) if options.part is None else box_of(options.part, width, height)
    part = np.s_[box.top : box.bottom, box.left : box.right]
    if options.part is not None:  # what the network does not see is not painted
        whole, mask = mask, np.zeros_like(mask)
        mask[part] = whole[part]
    return Plan(
        start=resize(original[part], size.width, size.height, ResizeMode.FILL, enlarge),
        mask=resize(mask[part], size.width, size.height, ResizeMode.FILL),
        original=original,
        overlay=mask,
        box=box,
    )


def paste_over(picture: Pixels, planned: Plan) -> Pixels:
    """The painted ``picture`` with the original laid over it, softly along the mask's edge.

    Where the overlay mask is 0 the bytes are the original's.  The result has the size of ``planned.original``.
    """
    height, width = planned.original.shape[:2]
    painted = Image.new("RGBA", (width, height))
    if planned.box is None:
        painted.paste(Image.fromarray(picture))
    else:
        box = planned.box
        part = resize(picture, box.right - box.left, box.bottom - box.top, ResizeMode.CROP)
        painted.paste(Image.fromarray(part), (box.left, box.top))
    painted.alpha_composite(_cut_out(planned.original, planned.overlay).convert("RGBA"))
    outside = planned.overlay[..., None] == 0
    return np.where(outside, planned.original, np.asarray(painted.convert("RGB")))


def _cut_out(pixels: Pixels, mask: MaskPixels) -> Image.Image:
    """The picture in mode RGBa (colours times alpha), transparent where the mask is light."""
    empty = Image.new("RGBa", (pixels.shape[1], pixels.shape[0]))
    empty.paste(Image.fromarray(pixels).convert("RGBA").convert("RGBa"), mask=Image.fromarray(invert(mask)))
    return empty


def invert(mask: MaskPixels) -> MaskPixels:
    """The other side of the mask."""
    return 255 - mask


def overlay_mask(mask: MaskPixels) -> MaskPixels:
    """The mask for laying the original over a whole picture: twice the mask, so that its soft edge lies outside."""
    return np.clip(mask.astype(np.uint16) * 2, 0, 255).astype(np.uint8)


def latent_mask(mask: MaskPixels, width: int, height: int, *, rounded: bool = True) -> NDArray[np.float32]:
    """The mask (height, width) at the latent's size, 1 where it is painted anew and 0 where it is kept."""
    small = Image.fromarray(mask).resize((width, height), Image.Resampling.BICUBIC)
    shares = (np.asarray(small, dtype=np.float32) / 255).astype(np.float32)
    return np.around(shares).astype(np.float32) if rounded else shares


def blur(mask: MaskPixels, sigma: float, vertical: float | None = None) -> MaskPixels:
    """The mask under a Gaussian of deviation ``sigma`` pixels, cut off at 2.5 sigma; the border is mirrored (101).

    ``vertical`` is the deviation along columns, None: the same.

    First along rows, then along columns, each rounded to 8 bits, with the kernel in 1/256 as OpenCV's ``GaussianBlur``
    does it for bytes (``modules/imgproc/src/smooth.dispatch.cpp``).
    """
    vertical = sigma if vertical is None else vertical
    if sigma > 0:
        mask = _convolved(mask.T, _kernel(sigma)).T
    return _convolved(mask, _kernel(vertical)) if vertical > 0 else mask


def _kernel(sigma: float) -> list[int]:
    """The right half of the kernel, the middle first, in 1/256; rounding errors are handed on from the edge inwards."""
    reach = int(2.5 * sigma + 0.5)
    values = np.exp(-(np.arange(reach + 1) ** 2) / (2 * sigma**2))
    values *= 256 / (values[0] + 2 * values[1:].sum())
    half: list[int] = []
    error = 0.0
    for value in values[:0:-1].tolist():
        half.append(round(value + error))
        error += value - half[-1]
    return [256 - 2 * sum(half), *half[::-1]]


def _convolved(levels: MaskPixels, half: list[int]) -> MaskPixels:
    """Each column convolved with the symmetric kernel."""
    reach, length = len(half) - 1, levels.shape[0]
    padded = np.pad(levels, ((reach, reach), (0, 0)), mode="reflect").astype(np.uint16)
    total = padded[reach : reach + length].astype(np.uint32) * half[0]
    for offset, weight in enumerate(half[1:], start=1):
        if weight:
            before, after = reach - offset, reach + offset
            total += (padded[before : before + length] + padded[after : after + length]).astype(np.uint32) * weight
    return ((total + 128) >> 8).astype(np.uint8)


def crop_box(mask: MaskPixels, padding: int, size: Size) -> Box:
    """The box around the mask, wider by ``padding`` and grown to the proportions of ``size`` as far as there is room.

    The mask must not be empty.  (``get_crop_region_v2`` and ``expand_crop_region``.)
    """
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom = max(int(rows[0]) - padding, 0), min(int(rows[-1]) + 1 + padding, height)
    left, right = max(int(columns[0]) - padding, 0), min(int(columns[-1]) + 1 + padding, width)
    ratio = size.width / size.height
    if (right - left) / (bottom - top) > ratio:
        top, bottom = _grown(top, bottom, int((right - left) / ratio - (bottom - top)), height)
    else:
        left, right = _grown(left, right, int((bottom - top) * ratio - (right - left)), width)
    return Box(left, top, right, bottom)


def box_of(part: Part, width: int, height: int) -> Box:
    """The box of a part.  Raises RequestError when it is not within a picture of this size."""
    if part.left + part.width > width or part.top + part.height > height:
        raise RequestError(
            f"The part of {part.width}x{part.height} pixels from ({part.left}, {part.top}) on "
            f"is not within the start image, which has {width}x{height}."
        )
    return Box(part.left, part.top, part.left + part.width, part.top + part.height)


def _grown(start: int, stop: int, by: int, limit: int) -> tuple[int, int]:
    """The range longer ``by`` so many, half of it before the start, shifted and cut to stay within 0 and ``limit``."""
    start -= by // 2
    stop += by - by // 2
    if stop >= limit:
        start, stop = start - (stop - limit), limit
    if start < 0:
        start, stop = 0, stop - start
    return start, min(stop, limit)


def fill(pixels: Pixels, mask: MaskPixels) -> Pixels:
    """The picture with the masked part filled by the colours around it: blurred copies, the widest at the bottom."""
    if mask.shape != pixels.shape[:2]:
        mask = resize(mask, pixels.shape[1], pixels.shape[0])
    kept = _cut_out(pixels, mask)
    result = Image.new("RGBA", kept.size)
    for radius, repeats in ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1)):
        blurred = kept.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(repeats):
            result.alpha_composite(blurred)
    return np.array(result.convert("RGB"))
