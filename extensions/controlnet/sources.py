"""A unit's control picture: from the pictures of its options, or of img2img, to pixels at the size that is made.

Order as Mikubill/sd-webui-controlnet ``scripts/controlnet.py``: choose the picture, cut out what "Only masked" paints,
run the preprocessor, bring the result to size.  No torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from webui.errors import RequestError
from webui.images import masks
from webui.images.resize import resize
from webui.request import GenerationRequest, InpaintArea, MaskedContent, MaskMode, StartImage
from webui.request import ResizeMode as StartResize

from .fitting import Levels, ResizeMode, at_resolution, fitted, pixel_perfect
from .preprocessors import slider_values
from .unit import DEFAULT, DEFAULT_RESOLUTION, NAME, Unit

if TYPE_CHECKING:
    from webui.conditioning import Pictures
    from webui.preprocessors import Preprocessor

_AS_HERE = {StartResize.CROP: ResizeMode.CROP, StartResize.FILL: ResizeMode.FILL}


@dataclass(frozen=True, eq=False)
class Source:
    """The picture (H, W, 3) that a unit is about, its mask (H, W) or None, and how it is brought to size."""

    pixels: Levels
    mask: Levels | None
    mode: ResizeMode


@dataclass(frozen=True, eq=False)
class Hint:
    """The control picture (H, W, 3) at the size of the picture; ``mask`` (H, W), light where it is painted anew."""

    pixels: Levels
    mask: Levels | None


def source_of(unit: Unit, request: GenerationRequest, pictures: Pictures) -> Source:
    """The picture of a unit.  Raises RequestError when there is none."""
    start = request.start
    if unit.image:
        mask = pictures.mask(unit.mask) if unit.mask else None
        source = Source(pictures.load(unit.image), mask, unit.resize_mode)
    elif start is not None:
        mode = _AS_HERE.get(start.resize_mode, ResizeMode.JUST_RESIZE)
        source = Source(pictures.load(start.image), _mask_of(unit, start, pictures), mode)
    else:
        raise RequestError(f"{NAME}: a unit has no control picture; give it one, or use img2img with a start image.")
    cropped = not unit.image or unit.inpaint_crop_input_image
    return _painted_part(source, start, request, pictures) if start and start.mask and cropped else source


def _mask_of(unit: Unit, start: StartImage, pictures: Pictures) -> Levels | None:
    """The unit's mask, else that of inpainting, light where it is painted anew."""
    if unit.mask:
        return pictures.mask(unit.mask)
    if start.mask is None:
        return None
    mask = pictures.mask(start.mask.image)
    return masks.invert(mask) if start.mask.mode is MaskMode.NOT_MASKED else mask


def _painted_part(source: Source, start: StartImage, request: GenerationRequest, pictures: Pictures) -> Source:
    """What "Only masked" enlarges of the start image, of the same place in the unit's picture."""
    assert start.mask is not None
    if start.mask.area is not InpaintArea.ONLY_MASKED:
        return source
    area = pictures.mask(start.mask.image)
    options = replace(start.mask, content=MaskedContent.ORIGINAL)
    height, width = area.shape

    def cut(levels: Levels) -> Levels | None:
        whole = resize(levels, width, height)
        planned = masks.plan(whole, area, options, request.size, start.resize_mode)
        return None if planned is None else planned.start

    pixels = cut(source.pixels)
    if pixels is None:
        return source
    of_mask = None if source.mask is None else cut(np.repeat(source.mask[:, :, None], 3, axis=2))
    return Source(pixels, None if of_mask is None else of_mask[:, :, 0], ResizeMode.JUST_RESIZE)


def seen_at(unit: Unit, source: Source, width: int, height: int) -> int:
    """The resolution at which the preprocessor sees the picture."""
    if unit.pixel_perfect:
        return max(1, pixel_perfect(source.pixels, width, height, source.mode))
    return DEFAULT_RESOLUTION if unit.processor_res == DEFAULT else unit.processor_res


def preprocessed(
    unit: Unit, source: Source, preprocessor: Preprocessor, width: int, height: int, pictures: Pictures
) -> Levels:
    """What the preprocessor makes of the picture, at the preprocessor's size."""
    pixels = source.pixels
    if preprocessor.scaled:
        pixels = at_resolution(pixels, seen_at(unit, source, width, height))
    values = slider_values(preprocessor, unit.threshold_a, unit.threshold_b)
    return pictures.preprocess(preprocessor.name, pixels, values)


def hint_of(unit: Unit, request: GenerationRequest, pictures: Pictures) -> Hint:
    """The control picture of a unit for a request.  Raises RequestError as :func:`source_of`."""
    width, height = request.size.width, request.size.height
    source = source_of(unit, request, pictures)
    made = preprocessed(unit, source, pictures.preprocessor(unit.preprocessor), width, height, pictures)
    mask = None
    if source.mask is not None:
        mask = fitted(_like(source.mask, source.pixels), width, height, source.mode)
    return Hint(fitted(made, width, height, source.mode), mask)


def _like(mask: Levels, pixels: Levels) -> Levels:
    """The mask at the size of its picture."""
    height, width = pixels.shape[:2]
    return mask if mask.shape == (height, width) else resize(mask, width, height)


def region_of(unit: Unit, request: GenerationRequest, pictures: Pictures) -> Levels | None:
    """Where the unit works, (H, W) at the size of the picture, white for wholly; None for everywhere."""
    if not unit.effective_region_mask:
        return None
    mask = pictures.mask(unit.effective_region_mask)
    return resize(mask, request.size.width, request.size.height)


def preview(unit: Unit, pictures: Pictures) -> Levels:
    """The control picture as people see it: at the preprocessor's size; what is painted anew is black."""
    if not unit.image:
        raise RequestError(f"{NAME}: there is no control picture to preview.")
    source = Source(pictures.load(unit.image), pictures.mask(unit.mask) if unit.mask else None, unit.resize_mode)
    preprocessor = pictures.preprocessor(unit.preprocessor)
    made = preprocessed(unit, source, preprocessor, source.pixels.shape[1], source.pixels.shape[0], pictures)
    if source.mask is None or not preprocessor.reads_mask:
        return made
    return np.where(_like(source.mask, made)[:, :, None] > 127, 0, made).astype(np.uint8)
