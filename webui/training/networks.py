"""The networks of a training put together: random ones, parts from other files, and the dtype they compute in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from webui.checkpoints import keys
from webui.checkpoints.formats import WeightsFile
from webui.checkpoints.hashes import file_sha256
from webui.errors import RequestError
from webui.families.sd15 import checked_config
from webui.networks.kernels import arrange
from webui.networks.unet import UNet

if TYPE_CHECKING:
    from webui.device import Compute
    from webui.model import Model
    from webui.training.kinds import Materials

Network = TypeVar("Network", bound=nn.Module)
SHARPER = 2.0
"""Cross-attention of a new UNet begins with queries and keys so much larger: attention that starts all but uniform lets
a word arrive with a weight of 1/77, and the text is learnt last of all."""
LATENT_RGB_KEY = "webui.latent_rgb"
"""The metadata under which a VAE file tells how its latents look (JSON: matrix, bias)."""


class Parts(Protocol):
    """Options that choose where the parts of a model come from; empty: from the base."""

    @property
    def fresh(self) -> bool:
        """Whether the UNet begins with random weights."""
        ...

    @property
    def text_encoder(self) -> str:
        """A CLIP file."""
        ...

    @property
    def vae(self) -> str:
        """A VAE file."""
        ...


@dataclass(frozen=True)
class Chosen:
    """The model put together; ``vae_digest`` tells its VAE from others, ``config`` is what its file says of itself."""

    model: Model
    vae_digest: str
    config: Mapping[str, Any]


def with_chosen_parts(parts: Parts, materials: Materials) -> Chosen:
    """The base model with the parts that the options name.  Raises RequestError or CheckpointError."""
    model, config, vae_digest = materials.model, dict(checked_config(materials.base)), materials.base_sha256
    if parts.vae:
        path = existing(parts.vae, "VAE")
        file = materials.formats.open(path)
        prefix = keys.VAE_PREFIX if file.header.shapes(keys.VAE_PREFIX) else ""
        fill(model.vae, file, prefix)
        vae_digest = file_sha256(path)
        if LATENT_RGB_KEY in file.header.metadata:
            config["latent_rgb"] = json.loads(file.header.metadata[LATENT_RGB_KEY])
            colours = config["latent_rgb"]
            model = replace(
                model, latent_rgb=torch.tensor(colours["matrix"]), latent_rgb_bias=torch.tensor(colours["bias"])
            )
    if parts.text_encoder:
        file = materials.formats.open(existing(parts.text_encoder, "CLIP"))
        prefix = keys.CLIP_PREFIX if file.header.shapes(keys.CLIP_PREFIX) else ""
        fill(model.text_encoder, file, prefix)
    if parts.fresh:
        model = replace(model, unet=fresh_unet(model.unet, materials.request.seed))
    return Chosen(model, vae_digest, config)


def fresh_unet(unet: UNet, seed: int) -> UNet:
    """A UNet of the same shape with new random weights, its last convolution of each block zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = UNet(unet.config)
    with torch.no_grad():
        for name, parameter in new.named_parameters():
            if name.endswith(("out_layers.3.weight", "out_layers.3.bias", "out.2.weight", "out.2.bias")):
                parameter.zero_()
            elif name.endswith(("attn2.to_q.weight", "attn2.to_k.weight")):
                parameter.mul_(SHARPER)
    return new.eval().requires_grad_(False)


def lowered(network: Network, compute: Compute, prefix: str) -> tuple[Network, dict[str, Tensor]]:
    """The network in the dtype it computes in, in place, and its tensors as they were before, by prefixed name."""
    exact = {prefix + name: tensor.detach().float().clone() for name, tensor in network.state_dict().items()}
    network.to(compute.device, compute.dtype)
    arrange(network)
    return network, exact


def fill(network: nn.Module, file: WeightsFile, prefix: str) -> None:
    """Put the file's tensors below ``prefix`` into the network.  Raises CheckpointError with a report of names."""
    own = network.state_dict()
    wanted = {name: tuple(tensor.shape) for name, tensor in own.items()}
    keys.require(keys.compare(file.header.shapes(prefix), wanted), file.path.name)
    loaded = file.load(prefix, torch.float32, torch.device("cpu"), lambda name: name in wanted)
    with torch.no_grad():
        for name, tensor in loaded.items():
            own[name].copy_(tensor)


def existing(path: str, what: str) -> Path:
    """The file that an option names.  Raises RequestError."""
    found = Path(path).expanduser()
    if not found.is_file():
        raise RequestError(f"There is no {what} file {found}.")
    return found
