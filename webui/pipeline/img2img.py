"""Picture to picture: the start image's latent under noise, walked from where the denoising strength begins."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from webui.diffusion.start import start_from_picture
from webui.images import masks
from webui.images.masks import Plan
from webui.images.resize import lanczos, resize
from webui.latents import codec
from webui.model import Model
from webui.networks.vae import Posterior
from webui.pipeline.denoising import Setup, image_noise, latent_shape, seeds, start_options, walk
from webui.pipeline.moments import Moment, Stepped
from webui.pipeline.txt2img import finished
from webui.request import GenerationRequest
from webui.result import Pixels
from webui.samplers import Denoise
from webui.upscalers import Upscaler, upscaled


@dataclass(frozen=True, eq=False)
class StartPictures:
    """The start image (H, W, 3) as read, and the bytes of the mask's file, None without a mask.

    ``upscaler`` makes the image larger where the resize mode does.
    """

    image: Pixels
    mask: bytes | None
    upscaler: Upscaler | None = None

    def enlarge(self, pixels: Pixels, width: int, height: int) -> Pixels:
        """The picture at this size, by the upscaler."""
        return (
            lanczos(pixels, width, height) if self.upscaler is None else upscaled(pixels, width, height, self.upscaler)
        )


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
        pixels = resize(
            pictures.image, request.size.width, request.size.height, request.start.resize_mode, pictures.enlarge
        )
        return Beginning(pictures.image, codec.encode(pixels, model))
    assert pictures.mask is not None
    mask = masks.read_mask(pictures.mask)
    mode = request.start.resize_mode
    planned = masks.plan(pictures.image, mask, request.start.mask, request.size, mode, pictures.enlarge)
    return Beginning(pictures.image, codec.encode(planned.start, model) if planned else None, planned)


def img2img(request: GenerationRequest, setup: Setup, beginning: Beginning, indices: Sequence[int]) -> Iterator[Moment]:
    """The moments of making the pictures ``indices`` from one start image."""
    assert request.start is not None
    latent = start_latent(beginning, request, setup, indices)
    strength, exact = request.start.denoising_strength, request.start.exact_steps
    multiplier = request.start.noise_multiplier
    result = yield from walk_from(
        request, setup, latent, indices, strength, exact_steps=exact, noise_multiplier=multiplier
    )
    yield from finished(request, setup, indices, result)


Constrain = Callable[[Denoise], Denoise]


def walk_from(
    request: GenerationRequest,
    setup: Setup,
    latent: Tensor,
    indices: Sequence[int],
    strength: float,
    *,
    exact_steps: bool = False,
    noise_multiplier: float = 1.0,
    constrain: Constrain = lambda denoise: denoise,
) -> Generator[Stepped, None, Tensor]:
    """Put ``latent`` (B, C, h, w) under as much noise as denoising ``strength`` says and walk it to a clean latent."""
    start = start_from_picture(
        setup.sampler,
        setup.schedule,
        setup.table,
        request.sampling.steps,
        strength,
        start_options(request),
        exact_steps=exact_steps,
    )
    noise = image_noise(request, setup, indices)
    initial = noise.initial()
    if noise_multiplier != 1.0:
        initial = initial * noise_multiplier
    x = latent * start.picture + initial * start.noise
    if request.noise.extra > 0:
        x = x + initial * (request.noise.extra * start.picture)
    return (yield from walk(request, setup, start, indices, noise, x, constrain))


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
