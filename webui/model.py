"""One loaded model: text encoder, UNet, VAE and the constants that belong to them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from webui.device import Compute
from webui.diffusion.prediction import Prediction
from webui.diffusion.schedules import NoiseTable
from webui.networks.clip import ClipTextEncoder
from webui.networks.unet import UNet
from webui.networks.vae import AutoencoderKL
from webui.prompt.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Model:
    """A checkpoint, ready to compute.

    ``scale_factor`` multiplies VAE latents to unit variance (0.18215 for SD1).  ``latent_rgb`` is a (4, 3) matrix (and
    ``latent_rgb_bias`` (3,)) that maps a latent to a rough picture in [-1, 1] for previews.
    """

    name: str
    sha256: str
    family: str
    tokenizer: Tokenizer
    text_encoder: ClipTextEncoder
    unet: UNet
    vae: AutoencoderKL
    prediction: Prediction
    noise_table: NoiseTable
    scale_factor: float
    native_size: int
    latent_rgb: Tensor
    latent_rgb_bias: Tensor
    compute: Compute

    @property
    def is_for_inpainting(self) -> bool:
        """Whether the UNet reads a mask and a masked latent beside the noisy one."""
        config = self.unet.config
        return config.in_channels == 2 * config.out_channels + 1
