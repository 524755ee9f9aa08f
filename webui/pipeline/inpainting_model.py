"""Inpainting checkpoints: their UNet reads, beside the noisy latent, where to paint and what stands around it.

Five channels more: the mask at the latent's size and the latent of the picture without what is under the mask, as
CompVis' inpainting models were trained (Rombach et al. 2022, arXiv:2112.10752, section 4.5) and AUTOMATIC1111
``modules/processing.py`` (inpainting_image_conditioning, txt2img_image_conditioning) hands them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from webui.diffusion.noise import random_stream
from webui.images.masks import MaskPixels
from webui.images.resize import resize
from webui.latents import codec
from webui.pipeline.denoising import Setup, seeds
from webui.request import GenerationRequest, RandomSource
from webui.result import Pixels

GREY = 127.5
"""The level that the VAE reads as 0: what stands under the mask."""


def informed(
    request: GenerationRequest,
    setup: Setup,
    indices: Sequence[int],
    start: Pixels | None = None,
    mask: MaskPixels | None = None,
) -> Setup:
    """The set-up that tells an inpainting model of the picture ``start`` and its ``mask``, of the request's size.

    Without a mask all is painted anew; without a picture there is nothing around.  Other models need nothing: the
    set-up itself comes back.  A refiner is told the same.
    """
    refiner = setup.refiner and informed(request, setup.refiner, indices, start, mask)
    setup = replace(setup, refiner=refiner) if refiner else setup
    if not setup.model.is_for_inpainting:
        return setup
    width, height = request.size.width, request.size.height
    painted = np.ones((height, width), np.float32) if mask is None else np.around(mask.astype(np.float32) / 255)
    picture = np.full((height, width, 3), GREY) if start is None else resize(start, width, height)
    around = picture * (1 - painted[..., None]) + GREY * painted[..., None]
    posterior = codec.encode(around, setup.model)
    shape = posterior.mean.shape
    # AUTOMATIC1111 draws from the global generator: after the start image, if there is one, was drawn from it.
    before = 0 if start is None else 1
    noise = torch.stack([_draw(seed, shape[1:], before) for seed in seeds(request, indices)])
    latent = posterior.sample(noise.to(posterior.mean.device)).float() * setup.model.scale_factor
    places = torch.nn.functional.interpolate(torch.from_numpy(painted)[None, None], size=shape[2:]).to(latent)
    return replace(setup, extra_channels=torch.cat([places.expand(len(latent), -1, -1, -1), latent], dim=1))


def _draw(seed: int, shape: Sequence[int], before: int) -> Tensor:
    stream = random_stream(seed, RandomSource.CPU)
    for _ in range(before):
        stream(shape)
    return stream(shape)
