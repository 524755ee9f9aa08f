"""Soft inpainting: a mask's grey values say how strongly the latent is held to the original, step by step.

As AUTOMATIC1111 ``extensions-builtin/soft-inpainting/scripts/soft_inpainting.py`` (latent_blend, get_modified_nmask).
Called by ``pipeline/inpaint.py`` in place of the hard blend.
"""

from __future__ import annotations

import torch
from torch import Tensor

from webui.images.masks import MaskPixels, Plan
from webui.images.soft_masks import changed_mask
from webui.request import SoftInpainting

TINY = 0.00001


def blended(original: Tensor, current: Tensor, painted: Tensor, level: float, options: SoftInpainting) -> Tensor:
    """From ``original`` towards ``current`` (B, C, h, w), as far as ``painted`` (1, 1, h, w) and the noise level say.

    ``level`` is a sigma, or a timestep with samplers that count those.
    """
    share = torch.pow(painted, level**options.schedule_bias * options.preservation_strength)
    return between(original, current, share, options.transition_contrast_boost)


def between(original: Tensor, current: Tensor, share: Tensor, power: float) -> Tensor:
    """(1 - share) * original + share * current, each vector over the channels with the power mean of their lengths.

    A high ``power`` keeps to the longer one.  The lengths' powers are taken in float64.
    """
    mixed = original * (1 - share) + current * share
    length = _length(mixed) + TINY
    wanted = (_length(original) ** power * (1 - share) + _length(current) ** power * share) ** (1 / power)
    scaled: Tensor = mixed * (wanted / length).to(mixed.dtype)
    return scaled


def overlay(original: Tensor, result: Tensor, painted: Tensor, options: SoftInpainting, planned: Plan) -> MaskPixels:
    """The mask by which one picture is laid over its original; the latents are (1, C, h, w)."""
    distance = torch.linalg.vector_norm((result - original).float(), dim=1)[0]
    moved, where = (tensor.double().cpu().numpy() for tensor in (distance, painted[0, 0]))
    return changed_mask(moved, where, options, planned)


def _length(latent: Tensor) -> Tensor:
    """(B, 1, h, w) float64."""
    length: Tensor = torch.linalg.vector_norm(latent, dim=1, keepdim=True)
    return length.double()
