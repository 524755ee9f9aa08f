"""A rough picture of a latent without the VAE: one matrix from latent channels to red, green and blue."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from torch import Tensor

from webui.model import Model
from webui.result import Pixels


def rough_picture(denoised: Tensor, model: Model) -> Pixels:
    """The picture (h, w, 3) uint8 at latent size of the first latent in (B, C, h, w)."""
    matrix = model.latent_rgb.to(denoised.device, denoised.dtype)
    bias = model.latent_rgb_bias.to(denoised.device, denoised.dtype)
    values = denoised[0].permute(1, 2, 0) @ matrix + bias
    pixels: Pixels = ((values.clamp(-1, 1) + 1) * 127.5).cpu().numpy().astype(np.uint8)
    return pixels


def preview_jpeg(denoised: Tensor, model: Model, scale: int = 4) -> bytes:
    """The rough picture as a small JPEG, enlarged ``scale`` times and smoothed so that it is pleasant to look at."""
    small = Image.fromarray(rough_picture(denoised, model))
    large = small.resize((small.width * scale, small.height * scale), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    large.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
