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
from webui.pipeline.denoising import Setup, image_noise, latent_shape, seeds
from webui.pipeline.img2img import Beginning, img2img, start_latent, walk_from
from webui.pipeline.moments import Made, Moment
from webui.pipeline.txt2img import finished
from webui.request import GenerationRequest, MaskedContent
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
    assert request.start is not None
    painted = _latent_mask(planned, request, setup)
    original = _original_latent(beginning, painted, request, setup, indices)
    result = yield from walk_from(
        request,
        setup,
        original,
        indices,
        request.start.denoising_strength,
        exact_steps=request.start.exact_steps,
        noise_multiplier=request.start.noise_multiplier,
        constrain=_constrain(original, painted, before=setup.sampler.grid is not None),
    )
    for moment in finished(request, setup, indices, result * painted + original * (1 - painted)):
        yield _pasted(moment, planned)


def run(request: GenerationRequest, setup: Setup, beginning: Beginning, indices: Sequence[int]) -> Iterator[Moment]:
    """img2img, or inpainting when the request has a mask."""
    assert request.start is not None
    make = img2img if request.start.mask is None else inpaint
    yield from make(request, setup, beginning, indices)


def _untouched(request: GenerationRequest, beginning: Beginning, indices: Sequence[int]) -> Iterator[Moment]:
    for index, seed in zip(indices, seeds(request, indices), strict=True):
        yield Made(MadePicture(pixels=beginning.image.copy(), index=index, seed=seed))


def _latent_mask(planned: Plan, request: GenerationRequest, setup: Setup) -> Tensor:
    """(1, 1, h, w): 1 where the latent is painted anew."""
    _, height, width = latent_shape(request, setup.model)
    mask = torch.from_numpy(masks.latent_mask(planned.mask, width, height))
    return mask[None, None].to(setup.model.compute.device)


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


def _constrain(original: Tensor, painted: Tensor, *, before: bool) -> Callable[[Denoise], Denoise]:
    """A denoiser held to the original outside the mask.

    Samplers on sigmas have what the model saw replaced; those on timesteps have the model look at a latent whose
    outside is the clean original (``before``), as AUTOMATIC1111 does with ``mask_before_denoising``.
    """

    return lambda denoise: _Held(denoise, original, painted, before)


@dataclass(frozen=True)
class _Held:
    """The denoiser that :func:`_constrain` gives."""

    denoise: Denoise
    original: Tensor
    painted: Tensor
    before: bool

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self._after(self.denoise(self._before(x, sigma), sigma))

    def guided_and_unguided(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """As the denoiser's own; one without guidance answers the same twice."""
        x = self._before(x, sigma)
        if isinstance(self.denoise, GuidedDenoise):
            guided, unguided = self.denoise.guided_and_unguided(x, sigma)
        else:
            guided = unguided = self.denoise(x, sigma)
        return self._after(guided), self._after(unguided)

    def _before(self, x: Tensor, sigma: float) -> Tensor:
        if not self.before:
            return x
        return x * self.painted + self.original * math.sqrt(1.0 + sigma**2) * (1 - self.painted)

    def _after(self, denoised: Tensor) -> Tensor:
        return denoised if self.before else denoised * self.painted + self.original * (1 - self.painted)


def _pasted(moment: Moment, planned: Plan) -> Moment:
    if not isinstance(moment, Made):
        return moment
    return Made(replace(moment.picture, pixels=masks.paste_over(moment.picture.pixels, planned)))
