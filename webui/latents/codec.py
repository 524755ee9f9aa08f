"""latent <-> picture, one picture at a time, so that a picture does not depend on its batch."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from webui.diffusion.noise import posterior_noise
from webui.errors import NumbersError
from webui.model import Model
from webui.networks.vae import AutoencoderKL, Posterior
from webui.result import Pixels


def encode(pixels: NDArray[Any], model: Model) -> Posterior:
    """The distribution (1, C, H/8, W/8) of latents of a picture (H, W, 3) of levels 0 to 255; sides are rounded down.

    A side shorter than a latent pixel is continued to one by its outermost line.
    """
    compute = model.compute
    missing = [(0, max(model.vae.config.factor - side, 0)) for side in pixels.shape[:2]]
    pixels = np.pad(pixels, (*missing, (0, 0)), mode="edge")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(compute.device, torch.float32)
    scaled = tensor / 255.0 * 2.0 - 1.0
    posterior = model.vae.encode(scaled.to(compute.vae_dtype))
    if not are_numbers(posterior.mean) and compute.vae_dtype is not torch.float32:
        posterior = exact(model.vae).encode(scaled)
    if not are_numbers(posterior.mean):
        raise NumbersError(f"The VAE of {model.name} made no numbers (NaN) of the start image; its file is damaged.")
    return posterior


def sample(posterior: Posterior, model: Model, seed: int) -> Tensor:
    """The model-space latent (1, C, h, w) float32 that the noise of ``seed`` takes, as AUTOMATIC1111 does."""
    noise = posterior_noise(seed, posterior.mean.shape[1:], model.compute.device)[None]
    return posterior.sample(noise).float() * model.scale_factor


def decode(latent: Tensor, model: Model) -> Pixels:
    """The picture (H, W, 3) uint8 of one latent (1, C, h, w); see :func:`decoded`."""
    return decoded(latent, model).pixels


@dataclass(frozen=True, eq=False)
class Decoded:
    """A picture, and whether the VAE had to be asked again in fp32."""

    pixels: Pixels
    again_in_fp32: bool


def decoded(latent: Tensor, model: Model) -> Decoded:
    """The picture (H, W, 3) uint8 of one latent (1, C, h, w).

    Grey levels are truncated, not rounded, as AUTOMATIC1111 does (``modules/processing.py``).  A VAE whose values are
    too large for its precision is asked again in fp32; raises NumbersError when that helps nothing.
    """
    unscaled = latent / model.scale_factor
    picture = model.vae.decode(unscaled.to(model.compute.vae_dtype)).float()
    again = not are_numbers(picture) and model.compute.vae_dtype is not torch.float32
    if again:
        picture = exact(model.vae).decode(unscaled.float())
    if not are_numbers(picture):
        raise NumbersError(
            f"The VAE of {model.name} made no picture but NaN, in fp32 too; its file is damaged. Choose another VAE."
        )
    levels = ((picture[0] + 1.0) / 2.0).clamp(0.0, 1.0) * 255.0
    return Decoded(levels.permute(1, 2, 0).cpu().numpy().astype(np.uint8), again)


def are_numbers(tensor: Tensor) -> bool:
    """Whether nothing in it is NaN or infinite."""
    return bool(torch.isfinite(tensor).all())


def exact(vae: AutoencoderKL) -> AutoencoderKL:
    """A copy of the VAE in fp32, for one picture: it takes twice the memory of one in half precision."""
    return copy.deepcopy(vae).float()
