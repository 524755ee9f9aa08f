"""A ControlNet: a copy of half the UNet learns to follow control pictures; the model itself stays as it is.

Zhang et al. 2023 (arXiv:2302.05543).  The paper leaves half of the captions out, so that the control picture alone has
to tell what is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.training.kinds import Materials, Task, TrainingKind

if TYPE_CHECKING:
    from torch import Tensor

    from webui.networks.unet import Openings


@dataclass(frozen=True, kw_only=True)
class ControlNetOptions:
    """Where control pictures come from.

    preprocessor: makes them from the training pictures; not asked when the data names a folder of control pictures
    """

    preprocessor: str = "canny"


def begin(options: ControlNetOptions, materials: Materials) -> Task:
    """Copy half the UNet, encode the pictures, and set out what learns."""
    from webui.networks.controlnet import ControlNet
    from webui.training.control import control_task

    network = ControlNet.from_unet(materials.model.unet, materials.request.seed)

    def adapt(noisy: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor) -> Openings:
        return network(noisy, hint, timesteps, context).openings()  # type: ignore[no-any-return]

    return control_task(
        network,
        adapt,
        options,
        materials,
        file_prefix="control_model.",
        architecture="stable-diffusion-v1/controlnet",
    )


@hookimpl
def register_training_kinds() -> list[TrainingKind]:
    """A ControlNet."""
    return [
        TrainingKind(
            name="controlnet",
            label="ControlNet",
            summary="Teach a copy of half the UNet to follow control pictures, such as edges.",
            folder="controlnet",
            options=ControlNetOptions,
            begin=begin,
            defaults={"optimiser.rate": 1e-5, "noise.caption_dropout": 0.5, "steps": 5000, "batch_size": 4},
        )
    ]
