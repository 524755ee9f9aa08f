"""Text to picture: pure noise, walked to a clean latent, decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from webui.diffusion.noise import ImageNoise
from webui.diffusion.start import start_from_noise
from webui.latents import codec
from webui.pipeline.denoising import Setup, latent_shape, seeds, walk
from webui.pipeline.moments import Decoding, Made, Moment
from webui.request import GenerationRequest
from webui.result import MadePicture


def txt2img(request: GenerationRequest, setup: Setup, indices: Sequence[int]) -> Iterator[Moment]:
    """The moments of making the pictures ``indices`` together in one batch."""
    if setup.sampler.one_by_one and len(indices) > 1:
        for index in indices:
            yield from txt2img(request, setup, [index])
        return
    model = setup.model
    start = start_from_noise(setup.sampler, setup.schedule, model.noise_table, request.sampling.steps)
    noise = ImageNoise(seeds(request, indices), latent_shape(request, model), model.compute.device)
    latent = yield from walk(request, setup, start, indices, noise, noise.initial() * start.noise)
    yield from finished(request, setup, indices, latent)


def finished(request: GenerationRequest, setup: Setup, indices: Sequence[int], latent: Tensor) -> Iterator[Moment]:
    """Decode the clean latents one by one, so that a picture does not depend on its batch."""
    for row, (index, seed) in enumerate(zip(indices, seeds(request, indices), strict=True)):
        yield Decoding(index)
        pixels = codec.decode(latent[row : row + 1], setup.model)
        yield Made(MadePicture(pixels=pixels, index=index, seed=seed))
