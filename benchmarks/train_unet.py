"""Samples a second and peak memory of UNet training: the trainer's loop against a plain diffusers loop.

    python benchmarks/train_unet.py [--model embedded half sd15] [--dtype bf16 fp32] [--batch N] [--size PX]
                                    [--threads N] [--seconds S] [--only ours|diffusers] [--default-allocator]

The diffusers loop is that of its ``examples/text_to_image/train_text_to_image.py`` without accelerate: fp32 weights,
AdamW, the gradient's norm clipped to 1; with bf16, autocast and a frozen text encoder in bf16.  Both sides get latents
that were computed before, and encode the captions in every step.  SD1.5's own shapes need 14 to 20 GiB for each side:
``--model sd15 --only ours``, then ``--only diffusers``.  Prints Markdown table rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import training_common as common


def ours(case: common.Case, dtype: str, threads: int) -> Iterator[None]:
    from webui.diffusion.prediction import Prediction
    from webui.diffusion.schedules import NoiseTable
    from webui.training.kinds.checkpoint import CheckpointOptions, CheckpointTask
    from webui.training.networks import lowered
    from webui.training.objective import Objective

    request = common.request("checkpoint", case, dtype, threads)

    def task(materials: Any, latents: Any, captions: Any) -> CheckpointTask:
        unet, text = common.networks(case)
        unet, exact = lowered(unet, materials.compute, "unet.")
        text, text_exact = lowered(text.requires_grad_(False), materials.compute, "text.")
        trained = {f"unet.{name}": parameter.requires_grad_(True) for name, parameter in unet.named_parameters()}
        return CheckpointTask(
            materials=materials,
            options=CheckpointOptions(),
            model=SimpleNamespace(unet=unet, text_encoder=text),
            objective=Objective.of(Prediction.EPSILON, NoiseTable.scaled_linear(), request.noise),
            latents=latents,
            captions=captions,
            trained=trained,
            initial={**exact, **text_exact},
        )

    return common.our_run(case, request, task, threads)


def diffusers(case: common.Case, dtype: str, threads: int) -> Iterator[None]:
    unet, text = common.diffusers_networks(case)
    text.requires_grad_(False).to(common.DTYPES[dtype])
    return common.diffusers_steps(case, dtype, unet.train(), text, list(unet.parameters()))


if __name__ == "__main__":
    common.main(__doc__, {"ours": ours, "diffusers": diffusers}, ["embedded", "half"])
