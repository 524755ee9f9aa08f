"""Text to picture: pure noise, walked to a clean latent; with a second pass enlarged and walked again; decoded."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from torch import Tensor

from webui.diffusion.start import start_from_noise
from webui.latents import codec
from webui.pipeline.denoising import Setup, image_noise, initial_noise, seeds, start_options, walk
from webui.pipeline.inpainting_model import informed
from webui.pipeline.moments import Decoding, Made, Moment, Stepped
from webui.request import GenerationRequest
from webui.result import MadePicture


def txt2img(request: GenerationRequest, setup: Setup, indices: Sequence[int]) -> Iterator[Moment]:
    """The moments of making the pictures ``indices`` together in one batch."""
    latent = yield from first_pass(request, setup, indices)
    yield from finished(request, setup, indices, latent)


def first_pass(request: GenerationRequest, setup: Setup, indices: Sequence[int]) -> Generator[Stepped, None, Tensor]:
    """The steps from pure noise to the clean latent (B, C, h, w), which it returns."""
    setup = informed(request, setup, indices)
    start = start_from_noise(setup.sampler, setup.schedule, setup.table, request.sampling.steps, start_options(request))
    noise = image_noise(request, setup, indices)
    return (yield from walk(request, setup, start, indices, noise, initial_noise(noise, setup, indices) * start.noise))


def finished(request: GenerationRequest, setup: Setup, indices: Sequence[int], latent: Tensor) -> Iterator[Moment]:
    """Decode the clean latents one by one, so that a picture does not depend on its batch."""
    for row, (index, seed) in enumerate(zip(indices, seeds(request, indices), strict=True)):
        yield Decoding(index)
        clean, steering = latent[row : row + 1], setup.steering
        if steering.final is not None:
            clean = steering.final(clean, index)
        decoded = codec.decoded(clean, setup.last_model)
        pixels, told = decoded.pixels, {"VAE retry": "fp32"} if decoded.again_in_fp32 else {}
        if steering.decoded is not None:
            pixels = steering.decoded(pixels, index)
        if setup.retouch is not None:
            pixels = setup.retouch(pixels)
        yield Made(MadePicture(pixels=pixels, index=index, seed=seed, infotext_extra=told))
