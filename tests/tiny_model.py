"""A checkpoint of the true layout and a toy's size, random from a seed: the model of every test below the networks.

As ``from tiny_model import tiny_checkpoint`` in a conftest, it is a fixture: the file's path, made once a session.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from webui.checkpoints import keys
from webui.networks.clip import ClipTextConfig, ClipTextEncoder
from webui.networks.unet import UNet, UNetConfig
from webui.networks.vae import AutoencoderKL, VAEConfig
from webui.request import GenerationRequest, Sampling, Size
from webui.settings import Settings

UNET = UNetConfig(
    model_channels=16,
    time_channels=64,
    channels=(16, 32),
    input_depths=((1,), (0,)),
    output_depths=((0, 0), (1, 1)),
    context_channels=32,
    heads=2,
    norm_groups=8,
)
VAE = VAEConfig(channels=(16, 16, 16, 16), blocks=1, norm_groups=8)
TEXT = ClipTextConfig(width=32, layers=2, heads=2, mlp_width=64)
CONFIG = {
    "unet": {"num_heads": 2, "norm_groups": 8},
    "vae": {"norm_groups": 8},
    "text": {"heads": 2},
    "native_size": 64,
}
METADATA = {
    "starter.config": json.dumps(CONFIG),
    "starter.defaults": "sampler=Euler; schedule=Automatic; steps=4; cfg_scale=3",
}


def tiny_weights(seed: int = 0) -> dict[str, Tensor]:
    """Every tensor of the checkpoint by its full name, float32."""
    with torch.device("meta"):
        networks: dict[str, nn.Module] = {
            keys.UNET_PREFIX: UNet(UNET),
            keys.VAE_PREFIX: AutoencoderKL(VAE),
            keys.CLIP_PREFIX: ClipTextEncoder(TEXT),
        }
    generator = torch.Generator().manual_seed(seed)
    return {
        prefix + name: _random(name, tuple(tensor.shape), generator)
        for prefix, network in networks.items()
        for name, tensor in network.state_dict().items()
    }


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = torch.empty(shape).uniform_(-1, 1, generator=generator)
    if "embedding" in name:
        return noise
    if len(shape) > 1:
        return noise.mul_(math.sqrt(3 / math.prod(shape[1:])))
    return noise.mul_(0.3).add_(1 if name.endswith("weight") else 0)


def write_checkpoint(path: Path, weights: dict[str, Tensor], metadata: dict[str, str] = METADATA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, metadata=metadata)
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``models`` that holds ``Stable-diffusion/tiny.safetensors``; the fixture is the file."""
    return write_checkpoint(tmp_path_factory.mktemp("models") / "Stable-diffusion" / "tiny.safetensors", tiny_weights())


def tiny_settings(folder: Path, tiny_checkpoint: Path) -> Settings:
    """Settings on empty folders below ``folder``, with the tiny checkpoint as the only model."""
    models = folder / "models" / "Stable-diffusion"
    models.mkdir(parents=True)
    (models / tiny_checkpoint.name).hardlink_to(tiny_checkpoint)
    return Settings(
        models_dir=folder / "models",
        outputs_dir=folder / "outputs",
        extensions_dir=folder / "extensions",
        device="cpu",
        precision="fp32",
        threads=1,
    )


def picture_bytes(width: int = 64, height: int = 64, seed: int = 0) -> bytes:
    """A PNG of smooth random colours."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()


def mask_bytes(width: int = 64, height: int = 64, box: tuple[int, int, int, int] | None = (16, 16, 48, 48)) -> bytes:
    """A PNG, light inside of ``box`` (left, top, right, bottom), black elsewhere."""
    levels = np.zeros((height, width), np.uint8)
    if box is not None:
        levels[box[1] : box[3], box[0] : box[2]] = 255
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "PNG")
    return stream.getvalue()


def tiny_request(**changes: Any) -> GenerationRequest:
    """A request for 64x64 pixels in three steps; names in ``changes`` may be those of the sampling record, too."""
    names = {field.name for field in fields(Sampling)}
    sampling = {"sampler": "Euler", "steps": 3, **{name: changes.pop(name) for name in names & changes.keys()}}
    plain: dict[str, Any] = {"prompt": "a red square", "size": Size(width=64, height=64), "seed": 7}
    return GenerationRequest(**{**plain, "sampling": Sampling(**sampling), **changes})
