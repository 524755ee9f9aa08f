"""latent <-> picture, one picture at a time, so that a picture does not depend on its batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from webui.diffusion.noise import posterior_noise
from webui.model import Model
from webui.networks.vae import Posterior
from webui.result import Pixels


def encode(pixels: Pixels, model: Model) -> Posterior:
    """The distribution (1, C, H/8, W/8) of latents of a picture (H, W, 3) uint8; sides are rounded down.

    A side shorter than a latent pixel is continued to one by its outermost line.
    """
    compute = model.compute
    missing = [(0, max(model.vae.config.factor - side, 0)) for side in pixels.shape[:2]]
    pixels = np.pad(pixels, (*missing, (0, 0)), mode="edge")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(compute.device, torch.float32)
    return model.vae.encode((tensor / 255.0 * 2.0 - 1.0).to(compute.vae_dtype))


def sample(posterior: Posterior, model: Model, seed: int) -> Tensor:
    """The model-space latent (1, C, h, w) float32 that the noise of ``seed`` takes, as AUTOMATIC1111 does."""
    noise = posterior_noise(seed, posterior.mean.shape[1:], model.compute.device)[None]
    return posterior.sample(noise).float() * model.scale_factor


def decode(latent: Tensor, model: Model) -> Pixels:
    """The picture (H, W, 3) uint8 of one latent (1, C, h, w).

    Grey levels are truncated, not rounded, as AUTOMATIC1111 does (``modules/processing.py``).
    """
    decoded = model.vae.decode((latent / model.scale_factor).to(model.compute.vae_dtype)).float()
    levels = ((decoded[0] + 1.0) / 2.0).clamp(0.0, 1.0) * 255.0
    pixels: Pixels = levels.permute(1, 2, 0).cpu().numpy().astype(np.uint8)
    return pixels
