"""A VAE from a file of its own, to stand in for the one in a checkpoint.

Three layouts of the same network (CompVis/stable-diffusion ``ldm/modules/diffusionmodules/model.py``): its bare names,
those names below the prefix that a checkpoint gives them, and the names of huggingface/diffusers (key map:
``scripts/convert_diffusers_to_original_stable_diffusion.py``).  A VAE does not tell its scale factor; that belongs to
the model it is used with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from webui.checkpoints import keys
from webui.checkpoints.formats import BUILT_IN, Formats
from webui.errors import CheckpointError
from webui.families import fill, sd15

if TYPE_CHECKING:
    from webui.device import Compute
    from webui.networks.vae import AutoencoderKL

_PREFIXES = ("", keys.VAE_PREFIX, "vae.")
_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
_DIFFUSERS = "decoder.up_blocks.0.resnets.0.norm1.weight"
_RENAMED = (
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.group_norm\.", ".mid.attn_1.norm."),
    (r"\.mid_block\.attentions\.0\.(?:to_q|query)\.", ".mid.attn_1.q."),
    (r"\.mid_block\.attentions\.0\.(?:to_k|key)\.", ".mid.attn_1.k."),
    (r"\.mid_block\.attentions\.0\.(?:to_v|value)\.", ".mid.attn_1.v."),
    (r"\.mid_block\.attentions\.0\.(?:to_out\.0|proj_attn)\.", ".mid.attn_1.proj_out."),
)
"""diffusers' names to those of CompVis, but for the way up, whose levels are counted from the other end."""


def load(path: Path, compute: Compute, norm_groups: int | None = None, formats: Formats = BUILT_IN) -> AutoencoderKL:
    """The VAE in a file, in ``compute``'s VAE dtype on its device; its sizes are read from the shapes.

    Norm groups leave no trace in the shapes: None means what the file's metadata states, else 32.  Raises
    CheckpointError for a file that holds no whole VAE of this kind.
    """
    import torch

    from webui.networks.kernels import arrange
    from webui.networks.vae import AutoencoderKL, VAEConfig

    file = formats.open(path)
    names = own_names(file.header.shapes())
    if not {"encoder.conv_in.weight", "decoder.conv_in.weight"} <= names.keys():
        raise CheckpointError(
            f"{path.name} is no VAE: it has no encoder and decoder of Stable Diffusion's kind; choose another file."
        )
    shapes = {own: _as_convolution(own, file.header.tensors[name].shape) for own, name in names.items()}
    stated = sd15.part(sd15.checked_config(file), "vae").get("norm_groups")
    try:
        config = VAEConfig.from_shapes(shapes, norm_groups or stated)
    except CheckpointError as error:
        raise CheckpointError(f"{path.name} cannot be used: {error}") from error
    with torch.device("meta"):
        network = AutoencoderKL(config)
    vae = fill(network, file, names, shapes, compute.vae_dtype, compute)
    if compute.device.type == "cpu":
        arrange(vae)
    return vae


def own_names(found: Mapping[str, object]) -> dict[str, str]:
    """The file's name of each tensor of the VAE by the network's own name, whichever of the layouts it is in."""
    prefix = next((start for start in _PREFIXES if f"{start}decoder.conv_in.weight" in found), "")
    bare = {name.removeprefix(prefix): name for name in found if name.startswith(prefix)}
    if _DIFFUSERS in bare:
        top = max(int(name.split(".")[2]) for name in bare if re.match(r"decoder\.up_blocks\.\d+\.", name))
        bare = {_from_diffusers(name, top): full for name, full in bare.items()}
    return {name: full for name, full in bare.items() if name.startswith(_PARTS)}


def _from_diffusers(name: str, top: int) -> str:
    for pattern, own in _RENAMED:
        name = re.sub(pattern, own, name)
    name = re.sub(r"\.up_blocks\.(\d+)\.", lambda found: f".up.{top - int(found[1])}.", name)
    return name.replace(".resnets.", ".block.").replace(".upsamplers.0.", ".upsample.")


def _as_convolution(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of attention's projections as 1 x 1 convolutions, which diffusers stores as linear layers."""
    return (*shape, 1, 1) if ".mid.attn_1." in name and len(shape) == 2 else shape
