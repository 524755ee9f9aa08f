"""Painting a masked part anew: img2img whose latent is held to the original outside the mask, pasted back exactly.

Order and blending as AUTOMATIC1111 ``modules/processing.py`` (StableDiffusionProcessingImg2Img) and
``modules/sd_samplers_cfg_denoiser.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from webui.images import masks
from webui.images.masks import Plan
from webui.pipeline import soft_inpainting
from webui.pipeline.denoising import Setup, image_noise, latent_shape, seeds
from webui.pipeline.img2img import Beginning, img2img, start_latent, walk_from, with_colours
from webui.pipeline.inpainting_model import informed
from webui.pipeline.moments import Made, Moment
from webui.pipeline.txt2img import finished
from webui.request import GenerationRequest, Mask, MaskedContent, SoftInpainting
from webui.result import MadePicture
from webui.samplers import Denoise, GuidedDenoise


def inpaint(request: GenerationRequest, setup: Setup, beginning: Beginning, indices: Sequence[int]) -> Iterator[Moment]:
    """The moments of painting the mask anew for the pictures ``indices``.

    An empty mask paints nothing: with "Only masked", which keeps the start image's size, the pictures are that image.
    """
    planned = beginning.planned
    if planned is None:
        yield from _untouched(request, beginning, indices)
        return
    assert request.start is not None and request.start.mask is not None
    mask = request.start.mask
    painted = _latent_mask(planned, mask, request, setup)
    original = _original_latent(beginning, painted, request, setup, indices)
    setup = informed(request, setup, indices, beginning.start, planned.mask)
    result = yield from walk_from(
        request,
        setup,
        original,
        indices,
        request.start.denoising_strength,
        exact_steps=request.start.exact_steps,
        noise_multiplier=request.start.noise_multiplier,
        constrain=_constrain(original, painted, setup, mask.soft),
    )
    if mask.soft is None:
        result = result * painted + original * (1 - painted)
    for moment in finished(request, setup, indices, result):
        laid = planned
        if mask.soft is not None and isinstance(moment, Made):
            row = indices.index(moment.picture.index)
            laid = _softly(planned, original[row : row + 1], result[row : row + 1], painted, mask.soft)
        moment = with_colours(moment, request, beginning)
        yield _pasted(moment, laid) if mask.overlay or mask.soft else moment


def run(request: GenerationRequest, setup: Setup, beginning: Beginning, indices: Sequence[int]) -> Iterator[Moment]:
    """img2img, or inpainting when the request has a mask."""
    assert request.start is not None
    make = img2img if request.start.mask is None else inpaint
    yield from make(request, setup, beginning, indices)


def _untouched(request: GenerationRequest, beginning: Beginning, indices: Sequence[int]) -> Iterator[Moment]:
    for index, seed in zip(indices, seeds(request, indices), strict=True):
        yield Made(MadePicture(pixels=beginning.image.copy(), index=index, seed=seed))


def _latent_mask(planned: Plan, mask: Mask, request: GenerationRequest, setup: Setup) -> Tensor:
    """(1, 1, h, w): 1 where the latent is painted anew."""
    _, height, width = latent_shape(request, setup.model)
    painted = torch.from_numpy(masks.latent_mask(planned.painted, width, height, rounded=masks.is_rounded(mask)))
    return painted[None, None].to(setup.model.compute.device)


def _original_latent(
    beginning: Beginning, painted: Tensor, request: GenerationRequest, setup: Setup, indices: Sequence[int]
) -> Tensor:
    """The latent that is held outside the mask, with what the request wants under it (B, C, h, w)."""
    assert request.start is not None and request.start.mask is not None
    latent = start_latent(beginning, request, setup, indices)
    content = request.start.mask.content
    if content is MaskedContent.LATENT_NOISE:
        return latent * (1 - painted) + image_noise(request, setup, indices).initial() * painted
    if content is MaskedContent.LATENT_NOTHING:
        return latent * (1 - painted)
    return latent


def _constrain(
    original: Tensor, painted: Tensor, setup: Setup, soft: SoftInpainting | None
) -> Callable[[Denoise], Denoise]:
    """A denoiser held to the original outside the mask, with soft inpainting as strongly as the mask and noise say.

    Samplers on sigmas have what the model saw replaced; those on timesteps have the model look at a latent whose
    outside is the clean original (``before``), as AUTOMATIC1111 does with ``mask_before_denoising``.
    """

    return lambda denoise: _Held(denoise, original, painted, setup, soft)


@dataclass(frozen=True)
class _Held:
    """The denoiser that :func:`_constrain` gives."""

    denoise: Denoise
    original: Tensor
    painted: Tensor
    setup: Setup
    soft: SoftInpainting | None

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self._after(self.denoise(self._before(x, sigma), sigma), sigma)

    def guided_and_unguided(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """As the denoiser's own; one without guidance answers the same twice."""
        x = self._before(x, sigma)
        if isinstance(self.denoise, GuidedDenoise):
            guided, unguided = self.denoise.guided_and_unguided(x, sigma)
        else:
            guided = unguided = self.denoise(x, sigma)
        return self._after(guided, sigma), self._after(unguided, sigma)

    def _before(self, x: Tensor, sigma: float) -> Tensor:
        if not self._is_before:
            return x
        scale = math.hypot(1.0, sigma)  # these samplers hold the latent at unit variance
        return self._blended(x / scale, self.setup.table.timestep(sigma)) * scale

    def _after(self, denoised: Tensor, sigma: float) -> Tensor:
        return denoised if self._is_before else self._blended(denoised, sigma)

    @property
    def _is_before(self) -> bool:
        return self.setup.sampler.grid is not None

    def _blended(self, current: Tensor, level: float) -> Tensor:
        if self.soft is not None:
            blended = soft_inpainting.blended(self.original, current, self.painted, level, self.soft)
        else:
            blended = current * self.painted + self.original * (1 - self.painted)
        rewritten = self.setup.steering.blended
        return blended if rewritten is None else rewritten(blended, self.original, self.painted, level)


def _softly(planned: Plan, original: Tensor, result: Tensor, painted: Tensor, options: SoftInpainting) -> Plan:
    """The plan with a mask of what has changed, for laying the original over one picture."""
    return replace(planned, overlay=soft_inpainting.overlay(original, result, painted, options, planned))


def _pasted(moment: Moment, planned: Plan) -> Moment:
    if not isinstance(moment, Made):
        return moment
    return Made(replace(moment.picture, pixels=masks.paste_over(moment.picture.pixels, planned)))
