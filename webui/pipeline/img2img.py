"""Picture to picture: the start image's latent under noise, walked from where the denoising strength begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from webui.diffusion.noise import ImageNoise
from webui.diffusion.start import Start, start_from_picture
from webui.images import masks
from webui.images.masks import Plan
from webui.images.resize import resize
from webui.latents import codec
from webui.model import Model
from webui.networks.vae import Posterior
from webui.pipeline.denoising import Setup, latent_shape, seeds, walk
from webui.pipeline.moments import Moment
from webui.pipeline.txt2img import finished
from webui.request import GenerationRequest
from webui.result import Pixels


@dataclass(frozen=True, eq=False)
class StartPictures:
    """The start image (H, W, 3) as read, and the bytes of the mask's file, None without a mask."""

    image: Pixels
    mask: bytes | None


@dataclass(frozen=True, eq=False)
class Beginning:
    """What the pictures of an img2img or inpainting job have in common; made once a job by :func:`begin`.

    ``posterior`` is what the start image encodes to (None when nothing is painted), ``planned`` the inpainting's plan.
    """

    image: Pixels
    posterior: Posterior | None
    planned: Plan | None = None


def begin(request: GenerationRequest, model: Model, pictures: StartPictures) -> Beginning:
    """Resize, mask and encode the start image of a resolved request, once for all its pictures."""
    assert request.start is not None
    if request.start.mask is None:
        pixels = resize(pictures.image, request.size.width, request.size.height, request.start.resize_mode)
        return Beginning(pictures.image, codec.encode(pixels, model))
    assert pictures.mask is not None
    mask = masks.read_mask(pictures.mask)
    planned = masks.plan(pictures.image, mask, request.start.mask, request.size, request.start.resize_mode)
    return Beginning(pictures.image, codec.encode(planned.start, model) if planned else None, planned)


def img2img(request: GenerationRequest, setup: Setup, beginning: Beginning, indices: Sequence[int]) -> Iterator[Moment]:
    """The moments of making the pictures ``indices`` from one start image."""
    latent = start_latent(beginning, request, setup, indices)
    noise = ImageNoise(seeds(request, indices), latent_shape(request, setup.model), setup.model.compute.device)
    start = start_of(request, setup)
    x = latent * start.picture + noise.initial() * start.noise
    result = yield from walk(request, setup, start, indices, noise, x)
    yield from finished(request, setup, indices, result)


def start_of(request: GenerationRequest, setup: Setup) -> Start:
    """Where the walk begins for the request's denoising strength."""
    assert request.start is not None
    table, steps = setup.model.noise_table, request.sampling.steps
    return start_from_picture(setup.sampler, setup.schedule, table, steps, request.start.denoising_strength)


def start_latent(beginning: Beginning, request: GenerationRequest, setup: Setup, indices: Sequence[int]) -> Tensor:
    """The start image's latent for each picture (B, C, h, w) float32, drawn with the picture's seed.

    A latent of another size ("Just resize (latent upscale)") is resized bilinearly.
    """
    assert beginning.posterior is not None
    drawn = torch.cat([codec.sample(beginning.posterior, setup.model, seed) for seed in seeds(request, indices)])
    size = latent_shape(request, setup.model)[1:]
    if tuple(drawn.shape[2:]) == size:
        return drawn
    return functional.interpolate(drawn, size=size, mode="bilinear")
