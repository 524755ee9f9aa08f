"""Pictures on the way: prompts drawn by the pipeline with the weights as they are now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from webui.conditioning import Contribution
from webui.conditioning.embedding import Embedding
from webui.device import Compute
from webui.diffusion.schedules import UNIFORM
from webui.model import Model
from webui.pipeline.denoising import prepare
from webui.pipeline.moments import Made
from webui.pipeline.txt2img import txt2img
from webui.request import GenerationRequest, Sampling, Size
from webui.result import Pixels
from webui.samplers import euler
from webui.training.request import Samples


def draw(
    samples: Samples,
    model: Model,
    compute: Compute,
    *,
    side: int | None = None,
    contributions: tuple[Contribution, ...] = (),
    embeddings: Sequence[Embedding] = (),
) -> list[Pixels]:
    """A picture (H, W, 3) uint8 for each prompt, by Euler on the uniform schedule, as the product would draw it.

    The networks compute in the dtype they have; ``compute`` says where.  ``side`` in pixels, None: the model's own.
    """
    sampler = euler.register_samplers()[0]
    side = side or model.native_size
    dtypes = (next(model.unet.parameters()).dtype, next(model.vae.parameters()).dtype)
    model = replace(model, compute=replace(compute, dtype=dtypes[0], vae_dtype=dtypes[1]))
    pictures = []
    for prompt in samples.prompts:
        request = GenerationRequest(
            prompt=prompt,
            size=Size(width=side, height=side),
            seed=samples.seed,
            sampling=Sampling(
                sampler=sampler.name, schedule=UNIFORM.name, steps=samples.steps, cfg_scale=samples.cfg_scale
            ),
        )
        with torch.inference_mode():
            setup = prepare(request, model, sampler, UNIFORM, contributions, embeddings)
            pictures += [moment.picture.pixels for moment in txt2img(request, setup, (0,)) if isinstance(moment, Made)]
    return pictures
