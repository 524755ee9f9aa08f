"""The second pass ("hires fix"): the first pass's latent or picture, enlarged, under noise, walked again.

As AUTOMATIC1111 1.10 ``modules/processing.py`` (StableDiffusionProcessingTxt2Img, sample_hr_pass): the noise is drawn
anew from the same seeds at the new size, and as many steps are walked as were asked for.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from webui.latents import codec
from webui.pipeline.denoising import Setup, latent_shape, seeds
from webui.pipeline.img2img import walk_from
from webui.pipeline.inpainting_model import informed
from webui.pipeline.moments import Enlarging, Moment, Stepped
from webui.pipeline.txt2img import finished, first_pass
from webui.request import GenerationRequest
from webui.upscalers import Upscaler, resized_latent, upscaled


@dataclass(frozen=True, kw_only=True)
class Second:
    """What the second pass needs: the request as it is there (see :func:`second_request`), its set-up, the upscaler."""

    request: GenerationRequest
    setup: Setup
    upscaler: Upscaler


def second_request(request: GenerationRequest) -> GenerationRequest:
    """The request of the second pass alone: its own size, sampler, steps, prompts and checkpoint."""
    second = request.second_pass
    assert second is not None
    sampling = replace(
        request.sampling,
        sampler=second.sampler or request.sampling.sampler,
        schedule=second.schedule or request.sampling.schedule,
        steps=second.steps or request.sampling.steps,
        eta=request.sampling.eta if second.eta is None else second.eta,
        cfg_scale=request.sampling.cfg_scale if second.cfg_scale is None else second.cfg_scale,
    )
    merging = request.token_merging
    return replace(
        request,
        token_merging=replace(merging, ratio=merging.second_pass or merging.ratio),
        size=second.size(request.size),
        sampling=sampling,
        prompt=second.prompt or request.prompt,
        negative_prompt=second.negative_prompt or request.negative_prompt,
        checkpoint=second.checkpoint or request.checkpoint,
        second_pass=None,
    )


def hires(request: GenerationRequest, setup: Setup, second: Second, indices: Sequence[int]) -> Iterator[Moment]:
    """The moments of both passes for the pictures ``indices``."""
    assert request.second_pass is not None
    after = second.request.sampling.steps
    latent, steps = yield from _counted(first_pass(request, setup, indices), 0, after)
    yield Enlarging(tuple(indices))
    larger = _cut(_enlarged(request, setup, second, latent, indices), latent_shape(second.request, second.setup.model))
    if second.setup.steering.second is not None:
        larger = second.setup.steering.second(larger, indices)
    strength = request.second_pass.denoising_strength
    informing = informed(second.request, second.setup, indices)
    walking = walk_from(second.request, informing, larger, indices, strength, exact_steps=True)
    latent, _ = yield from _counted(walking, steps, 0)
    yield from finished(second.request, second.setup, indices, latent)


def _counted(
    walking: Generator[Stepped, None, Tensor], before: int, after: int
) -> Generator[Stepped, None, tuple[Tensor, int]]:
    """The steps of one pass as those of a walk with others before and after; returns the latent and steps so far."""
    done = before
    while True:
        try:
            moment = next(walking)
        except StopIteration as end:
            return end.value, done
        done = before + moment.step
        yield replace(moment, step=done, steps=before + moment.steps + after)


def _enlarged(
    request: GenerationRequest, setup: Setup, second: Second, latent: Tensor, indices: Sequence[int]
) -> Tensor:
    """The latent (B, C, h, w) at the size that the picture is enlarged to."""
    assert request.second_pass is not None
    width, height = request.second_pass.enlarged(request.size)
    if second.upscaler.is_latent:
        factor = setup.model.vae.config.factor
        return resized_latent(latent, height // factor, width // factor, second.upscaler)
    drawn = []
    for row, seed in enumerate(seeds(request, indices)):
        pixels = codec.decode(latent[row : row + 1], setup.last_model)
        posterior = codec.encode(upscaled(pixels, width, height, second.upscaler), second.setup.model)
        drawn.append(codec.sample(posterior, second.setup.model, seed))
    return torch.cat(drawn)


def _cut(latent: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The middle of a latent that is larger than ``shape`` (C, h, w)."""
    height, width = latent.shape[2] - shape[1], latent.shape[3] - shape[2]
    top, left = height // 2, width // 2
    return latent[:, :, top : top + shape[1], left : left + shape[2]]
