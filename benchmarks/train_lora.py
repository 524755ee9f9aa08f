"""Samples a second and peak memory of LoRA training (rank 8): the trainer's loop against a plain diffusers loop.

    python benchmarks/train_lora.py [--model embedded half sd15] [--dtype bf16 fp32] [--batch N] [--size PX]
                                    [--threads N] [--seconds S] [--only ours|diffusers] [--default-allocator]

The diffusers loop is that of its ``examples/text_to_image/train_text_to_image_lora.py`` without accelerate, with peft:
the frozen networks in bf16 where that is the precision, pairs beside the attention's four projections in fp32, AdamW,
autocast.  Ours changes the same layers (``--layers attention``), or all that a LoRA of ours changes by default
(``--layers all``, the feed-forward layers and the transformers' projections too).  Prints Markdown table rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
import training_common as common

RANK = 8
ATTENTION = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")
ALL = [*(name.removesuffix(".weight") for name in ATTENTION), "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]


def ours(case: common.Case, dtype: str, threads: int, layers: str) -> Iterator[None]:
    from webui.diffusion.prediction import Prediction
    from webui.diffusion.schedules import NoiseTable
    from webui.networks.kernels import arrange
    from webui.networks.layer_names import TEXT_ENCODER, UNET, lora_targets
    from webui.training.kinds.lora import LoraOptions, LoraTask
    from webui.training.low_rank import attach
    from webui.training.objective import Objective

    request = common.request("lora", case, dtype, threads)

    def task(materials: Any, latents: Any, captions: Any) -> LoraTask:
        unet, text = common.networks(case)
        for network in (unet, text):
            network.to(materials.compute.dtype)
            arrange(network)
        targets = lora_targets(unet, text, convolutions=False, text=False)
        targets = {n: t for n, t in targets.items() if layers == "all" or t.parameter.endswith(ATTENTION)}
        pairs, _ = attach({UNET: unet, TEXT_ENCODER: text}, targets, RANK, 1.0, 0)
        trained = {f"unet.{name}.{side}": value for name, pair in pairs.items() for side, value in vars(pair).items()}
        return LoraTask(
            materials=materials,
            options=LoraOptions(rank=RANK),
            model=SimpleNamespace(unet=unet, text_encoder=text),
            objective=Objective.of(Prediction.EPSILON, NoiseTable.scaled_linear(), request.noise),
            latents=latents,
            captions=captions,
            trained=trained,
            initial={},
        )

    return common.our_run(case, request, task, threads)


def diffusers(case: common.Case, dtype: str, threads: int, layers: str) -> Iterator[None]:
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    weight_dtype = common.DTYPES[dtype]
    unet, text = common.diffusers_networks(case)
    unet.requires_grad_(False).to(weight_dtype)
    text.requires_grad_(False).to(weight_dtype)
    names = ALL if layers == "all" else [name.removesuffix(".weight") for name in ATTENTION]
    config = LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=names)
    unet.add_adapter(config)
    if dtype == "bf16":
        cast_training_params(unet, dtype=torch.float32)
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    return common.diffusers_steps(case, dtype, unet, text, trained)


if __name__ == "__main__":
    common.main(__doc__, {"ours": ours, "diffusers": diffusers}, ["embedded", "sd15"], layers=("attention", "all"))
