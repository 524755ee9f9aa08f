"""A T2I-Adapter: a small network learns to follow control pictures; the model itself stays as it is.

Mou et al. 2023 (arXiv:2302.08453), section 3.3.  It reads neither latent nor time, so it costs next to nothing when
drawing, and follows less closely than a ControlNet.
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
class T2IAdapterOptions:
    """Where control pictures come from.

    preprocessor: makes them from the training pictures; not asked when the data names a folder of control pictures
    """

    preprocessor: str = "canny"


def begin(options: T2IAdapterOptions, materials: Materials) -> Task:
    """Draw the adapter's first weights, encode the pictures, and set out what learns."""
    from webui.networks.t2i_adapter import T2IAdapter, openings
    from webui.training.control import control_task

    config = materials.model.unet.config
    network = T2IAdapter.for_unet(config, materials.request.seed)

    def adapt(noisy: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor) -> Openings:
        return openings(network(hint), config)

    return control_task(
        network, adapt, options, materials, file_prefix="", architecture="stable-diffusion-v1/t2i-adapter"
    )


@hookimpl
def register_training_kinds() -> list[TrainingKind]:
    """A T2I-Adapter."""
    return [
        TrainingKind(
            name="t2i-adapter",
            label="T2I-Adapter",
            summary="Teach a small network beside the UNet to follow control pictures, such as edges.",
            folder="controlnet",
            options=T2IAdapterOptions,
            begin=begin,
            defaults={"optimiser.rate": 1e-5, "steps": 5000, "batch_size": 4},
        )
    ]
