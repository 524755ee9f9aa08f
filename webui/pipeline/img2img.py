"""Picture to picture: the start image's latent under noise, walked from where the denoising strength begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from webui.diffusion.start import start_from_picture
from webui.images import masks
from webui.images.colours import with_colours_of
from webui.images.masks import Plan
from webui.images.resize import lanczos, resize
from webui.latents import codec
from webui.model import Model
from webui.networks.vae import Posterior
from webui.pipeline.denoising import Setup, image_noise, initial_noise, latent_shape, seeds, start_options, walk
from webui.pipeline.inpainting_model import informed
from webui.pipeline.moments import Made, Moment, Stepped
from webui.pipeline.txt2img import finished
from webui.request import GenerationRequest
from webui.result import Pixels
from webui.samplers import Denoise
from webui.upscalers import Upscaler, upscaled


@dataclass(frozen=True, eq=False)
class StartPictures:
    """The start image (H, W, 3) as read, and the bytes of the mask's file, None without a mask.

    ``latent`` are those of the latent's own mask.  ``upscaler`` makes the image larger where the resize mode does.
    """

    image: Pixels
    mask: bytes | None
    upscaler: Upscaler | None = None
    latent: bytes | None = None

    def enlarge(self, pixels: Pixels, width: int, height: int) -> Pixels:
        """The picture at this size, by the upscaler."""
        return (
            lanczos(pixels, width, height) if self.upscaler is None else upscaled(pixels, width, height, self.upscaler)
        )


@dataclass(frozen=True, eq=False)
class Beginning:
    """What the pictures of an img2img or inpainting job have in common; made once a job by :func:`begin`.

    ``image`` is the start image as read and ``start`` as it is encoded; ``posterior`` is what it encodes to (None when
    nothing is painted), ``planned`` the inpainting's plan.
    """

    image: Pixels
    start: Pixels
    posterior: Posterior | None
    planned: Plan | None = None


def begin(request: GenerationRequest, model: Model, pictures: StartPictures) -> Beginning:
    """Resize, mask and encode the start image of a resolved request, once for all its pictures."""
    assert request.start is not None
    mode, size, options = request.start.resize_mode, request.size, request.start.mask
    if options is None:
        pixels = resize(pictures.image, size.width, size.height, mode, pictures.enlarge)
        return Beginning(pictures.image, pixels, codec.encode(pixels, model))
    assert pictures.mask is not None
    mask = masks.read_mask(pictures.mask, rounded=masks.is_rounded(options))
    latent = None if pictures.latent is None else masks.read_mask(pictures.latent, rounded=options.round)
    planned = masks.plan(pictures.image, mask, options, size, mode, pictures.enlarge, latent)
    if planned is None:
        return Beginning(pictures.image, pictures.image, None)
    return Beginning(pictures.image, planned.start, codec.encode(planned.start, model), planned)


def img2img(request: GenerationRequest, setup: Setup, beginning: Beginning, indices: Sequence[int]) -> Iterator[Moment]:
    """The moments of making the pictures ``indices`` from one start image."""
    assert request.start is not None
    latent = start_latent(beginning, request, setup, indices)
    setup = informed(request, setup, indices, beginning.start)
    strength, exact = request.start.denoising_strength, request.start.exact_steps
    multiplier = request.start.noise_multiplier
    result = yield from walk_from(
        request, setup, latent, indices, strength, exact_steps=exact, noise_multiplier=multiplier
    )
    for moment in finished(request, setup, indices, result):
        yield with_colours(moment, request, beginning)


def with_colours(moment: Moment, request: GenerationRequest, beginning: Beginning) -> Moment:
    """The moment; a finished picture with the colours of the start, if the request wants its colours corrected."""
    if not isinstance(moment, Made) or request.start is None or not request.start.color_correction:
        return moment
    return Made(replace(moment.picture, pixels=with_colours_of(moment.picture.pixels, beginning.start)))


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
    initial = initial_noise(noise, setup, indices)
    if noise_multiplier != 1.0:
        initial = initial * noise_multiplier
    x = latent * start.picture + initial * start.noise
    if request.noise.extra > 0:
        # It is added to the latent as the sampler holds it; one with a grid of its own holds it at unit variance.
        held = math.hypot(1.0, start.sigmas[0]) if setup.sampler.grid is not None else 1.0
        x = x + initial * (request.noise.extra * held)
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
