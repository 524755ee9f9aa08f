"""Stable Diffusion 1.x in CompVis' single-file layout, at any width: the true 860 M and the embedded model alike.

Key layout: CompVis/stable-diffusion ``configs/stable-diffusion/v1-inference.yaml`` and the modules it names.  Head and
group counts leave no trace in the shapes; a file may state them in its metadata under ``starter.config`` (JSON).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webui.checkpoints import keys
from webui.errors import CheckpointError
from webui.families import Network, fill
from webui.hooks import hookimpl
from webui.request import MAX_SIDE

if TYPE_CHECKING:
    import torch

    from webui.checkpoints.formats import WeightsFile
    from webui.checkpoints.loaders import Header
    from webui.device import Compute
    from webui.model import Model

CONFIG_KEY = "starter.config"
SCALE_FACTOR = 0.18215
CHANNELS = (4, 9)
"""What a UNet reads: the noisy latent, or with it a mask and the latent of the picture without what is under it."""
LATENT_RGB = (
    (0.3512, 0.2297, 0.3227),
    (0.3250, 0.4974, 0.2350),
    (-0.2829, 0.1762, 0.2721),
    (-0.2120, -0.2616, -0.7177),
)
"""Latent channels to red, green, blue in about [-1, 1] (comfyanonymous/ComfyUI, ``comfy/latent_formats.py``)."""


@dataclass(frozen=True)
class StableDiffusion1:
    """Recognised by its UNet below ``model.diffusion_model.`` and a CLIP text encoder with Hugging Face names."""

    name: str = "Stable Diffusion 1"

    def detect(self, header: Header) -> bool:
        """Whether the three networks of SD1 are there and the UNet's projections are convolutions (SD2: linear)."""
        shapes = header.shapes(keys.UNET_PREFIX)
        projection = shapes.get("input_blocks.1.1.proj_in.weight", ())
        has_text = any(name.startswith(keys.CLIP_PREFIX) for name in header.tensors)
        has_vae = any(name.startswith(keys.VAE_PREFIX) for name in header.tensors)
        return len(projection) == 4 and has_text and has_vae

    def native_size(self, header: Header) -> int:
        """512, unless the file's metadata states another usable size."""
        size = _config(header).get("native_size", 512)
        return size if type(size) is int and 64 <= size <= MAX_SIDE and size % 8 == 0 else 512

    def build(self, file: WeightsFile, compute: Compute) -> Model:
        """The model with its weights in ``compute``'s dtype.  Raises CheckpointError with a report of keys."""
        import torch

        from webui.diffusion.prediction import Prediction
        from webui.diffusion.schedules import NoiseTable
        from webui.model import Model
        from webui.networks.clip import ClipTextConfig, ClipTextEncoder
        from webui.networks.kernels import arrange
        from webui.networks.unet import UNet, UNetConfig
        from webui.networks.vae import AutoencoderKL, VAEConfig
        from webui.prompt.tokenizer import Tokenizer

        config = checked_config(file)
        _require_channels(file)
        unet, vae, text = (part(config, name) for name in ("unet", "vae", "text"))
        text_shapes = _text_shapes(file.header)
        table = NoiseTable.scaled_linear()
        names = file.header.tensors
        with torch.device("meta"):
            networks = (
                UNet(UNetConfig.from_shapes(
                    file.header.shapes(keys.UNET_PREFIX), unet.get("num_heads"), unet.get("norm_groups")
                )),
                AutoencoderKL(VAEConfig.from_shapes(file.header.shapes(keys.VAE_PREFIX), vae.get("norm_groups"))),
                ClipTextEncoder(ClipTextConfig.from_shapes(text_shapes, text.get("heads"))),
            )  # fmt: skip
        loaded_unet = _filled(networks[0], file, keys.UNET_PREFIX, compute.dtype, compute)
        loaded_vae = _filled(networks[1], file, keys.VAE_PREFIX, compute.vae_dtype, compute)
        loaded_text = _filled(networks[2], file, keys.CLIP_PREFIX, compute.dtype, compute)
        if compute.device.type == "cpu":
            for convolutional in (loaded_unet, loaded_vae):
                arrange(convolutional)
        colours = config.get("latent_rgb", {"matrix": LATENT_RGB})
        return Model(
            name=file.path.stem,
            sha256="",
            family=self.name,
            tokenizer=Tokenizer(),
            text_encoder=loaded_text,
            unet=loaded_unet,
            vae=loaded_vae,
            prediction=Prediction.V if _is_v(file.header, config) else Prediction.EPSILON,
            noise_table=table.zero_terminal_snr() if "ztsnr" in names else table,
            scale_factor=float(config.get("scale_factor", SCALE_FACTOR)),
            native_size=self.native_size(file.header),
            latent_rgb=torch.tensor(colours["matrix"], dtype=torch.float32),
            latent_rgb_bias=torch.tensor(colours.get("bias", (0.0, 0.0, 0.0)), dtype=torch.float32),
            compute=compute,
        )


def _config(header: Header) -> dict[str, Any]:
    """The file's own statement about itself; empty when it has none or one that is not a JSON object."""
    try:
        config = json.loads(header.metadata.get(CONFIG_KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def checked_config(file: WeightsFile) -> dict[str, Any]:
    """The file's own statement, its numbers checked.  Raises CheckpointError."""
    config = _config(file.header)
    counts = [part(config, "unet").get("num_heads"), part(config, "text").get("heads")]
    counts += [part(config, name).get("norm_groups") for name in ("unet", "vae")]
    scale, colours = config.get("scale_factor", SCALE_FACTOR), config.get("latent_rgb", {"matrix": LATENT_RGB})
    sound = (
        all(count is None or (type(count) is int and 0 < count <= 1024) for count in counts)
        and _are_numbers([scale], 1)
        and scale > 0
        and isinstance(colours, dict)
        and all(_are_numbers(row, 3) for row in _rows(colours.get("matrix")))
        and len(_rows(colours.get("matrix"))) == 4
        and _are_numbers(colours.get("bias", (0.0, 0.0, 0.0)), 3)
    )
    if not sound:
        raise CheckpointError(f"{file.path.name} is damaged: its {CONFIG_KEY} metadata holds impossible values.")
    return config


def _require_channels(file: WeightsFile) -> None:
    """Raise CheckpointError unless the UNet reads a latent, or one with a mask and a masked latent (inpainting)."""
    shapes = file.header.shapes(keys.UNET_PREFIX)
    channels = shapes.get("input_blocks.0.0.weight", (0, 4))[1]
    if channels not in CHANNELS:
        raise CheckpointError(
            f"The UNet of {file.path.name} reads {channels} channels; known are 4 and, for inpainting, 9. "
            "(8 are those of an InstructPix2Pix model, 5 of one for depth or for upscaling.)"
        )


def _rows(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _are_numbers(values: Any, length: int) -> bool:
    return len(_rows(values)) == length and all(
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6 for value in values
    )


def part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What a file states about one of its networks, empty when it states nothing."""
    stated = config.get(name, {})
    return stated if isinstance(stated, Mapping) else {}


def _is_v(header: Header, config: Mapping[str, Any]) -> bool:
    """Whether the UNet predicts v: by metadata, else by the marker tensor."""
    stated = header.metadata.get("modelspec.prediction_type", "")
    return stated.lower().startswith("v") or "v_pred" in header.tensors


def _text_shapes(header: Header) -> dict[str, tuple[int, ...]]:
    return {_text_name(name): shape for name, shape in header.shapes(keys.CLIP_PREFIX).items()}


def _text_name(name: str) -> str:
    """The encoder's own name of a tensor: some merged checkpoints lack the ``text_model.`` level."""
    return name if name.startswith("text_model.") else f"text_model.{name}"


def _filled(network: Network, file: WeightsFile, prefix: str, dtype: torch.dtype, compute: Compute) -> Network:
    """The network with the file's tensors below ``prefix`` as its parameters."""
    rename = _text_name if prefix == keys.CLIP_PREFIX else str
    found = file.header.shapes(prefix)
    names = {rename(name): prefix + name for name in found}
    return fill(network, file, names, {rename(name): shape for name, shape in found.items()}, dtype, compute)


@hookimpl
def register_model_families() -> list[StableDiffusion1]:
    """Stable Diffusion 1.x."""
    return [StableDiffusion1()]
