"""The items of a batch -> the loss of the UNet's answer: the step of every kind that learns by what the UNet says.

The loss of Rombach et al. 2022 (arXiv:2112.10752, equation 3).  Class pictures count as the request says (prior
preservation, Ruiz et al. 2022, arXiv:2208.12242, equation 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor

from webui.model import Model
from webui.networks.unet import Openings
from webui.training.captions import Captions
from webui.training.kinds import Materials
from webui.training.objective import Objective

Read = Callable[[Tensor], Tensor]
"""Token ids (B, T) -> context (B, T, width)."""
Adapt = Callable[[Tensor, Tensor, Tensor], Openings]
"""(noisy latent, timesteps, context) -> the openings of the UNet's call."""


class UNetTask(Protocol):
    """What such tasks have."""

    @property
    def materials(self) -> Materials:
        """What the task is made from."""
        ...

    @property
    def model(self) -> Model:
        """The networks that are asked."""
        ...

    @property
    def objective(self) -> Objective:
        """What they are asked."""
        ...

    @property
    def captions(self) -> Captions:
        """The captions, a row for each item unless the task has others."""
        ...


def unet_loss(
    task: UNetTask,
    items: Sequence[int],
    latents: Tensor,
    random: Generator,
    read: Read,
    *,
    rows: Sequence[int] | None = None,
    adapt: Adapt | None = None,
) -> dict[str, Tensor]:
    """The loss of items whose latents (B, C, h, w) were drawn, under ``"loss"``.

    ``rows`` are those of the captions where they are not the items.
    """
    materials, device = task.materials, task.materials.compute.device
    noise = materials.request.noise
    question = task.objective.ask(latents, random)
    tokens = task.captions.batch(
        items if rows is None else rows, noise.caption_dropout, random, short=noise.short_captions
    )
    noisy, timesteps, context = question.noisy.to(device), question.timesteps.to(device), read(tokens.to(device))
    openings = None if adapt is None else adapt(noisy, timesteps, context)
    answer = task.model.unet(noisy, timesteps, context, openings)
    weight = materials.request.data.class_weight
    counts = [weight if materials.data.items[item].is_class else 1.0 for item in items]
    return {"loss": task.objective.loss(question, answer.cpu(), torch.tensor(counts))}
