"""A checkpoint of Stable Diffusion 1.5's true names and shapes (fp16, 2.1 GB) with random weights from a seed.

    python benchmarks/random_checkpoint.py FILE [--seed N]

Needs no download and draws nothing, but takes the time and the memory of the real thing.  Used by ``load_memory.py``
and ``job_overhead.py``.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from webui.checkpoints import keys
from webui.networks.clip import ClipTextConfig, ClipTextEncoder
from webui.networks.unet import UNet, UNetConfig
from webui.networks.vae import AutoencoderKL, VAEConfig


def sd15_shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor's full name and shape."""
    with torch.device("meta"):
        networks = {
            keys.UNET_PREFIX: UNet(UNetConfig()),
            keys.VAE_PREFIX: AutoencoderKL(VAEConfig()),
            keys.CLIP_PREFIX: ClipTextEncoder(ClipTextConfig()),
        }
    return {
        prefix + name: tuple(tensor.shape)
        for prefix, network in networks.items()
        for name, tensor in network.state_dict().items()
    }


def write_sd15(path: Path, seed: int = 0) -> Path:
    """Write the checkpoint, one tensor in memory at a time; returns ``path``."""
    shapes = sd15_shapes()
    header, position = {}, 0
    for name, shape in shapes.items():
        end = position + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            file.write(_values(name, shape, generator).tobytes())
    return path


def _values(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Weights of deviation sqrt(1 / fan in), norms at 1, biases at 0: nothing overflows on its way through."""
    if len(shape) == 1:
        return np.full(shape, 1 if name.endswith("weight") else 0, np.float16)
    noise = generator.random(math.prod(shape), np.float32)
    noise -= 0.5
    noise *= math.sqrt(12 / math.prod(shape[1:])) * (0.5 if "embedding" in name else 1)
    return noise.astype(np.float16)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_sd15(arguments.file, arguments.seed)
    print(f"{arguments.file}: {arguments.file.stat().st_size / 1e9:.2f} GB")
