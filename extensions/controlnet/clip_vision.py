"""What an IP-Adapter reads of a picture: the CLIP image encoder of a file, and its answers.

The encoder is ``webui.networks.clip_image``; here are the names and sizes of published files: huggingface/transformers'
(``vision_model.``) and mlfoundations/open_clip's (``visual.``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from webui.checkpoints.formats import WeightsFile
from webui.device import Compute
from webui.errors import CheckpointError
from webui.networks.clip_image import ClipImageConfig, ClipImageEncoder

from .fitting import Levels
from .networks import tensors_of

HEADS = {1280: 16, 1664: 16}
"""Of the encoders whose heads are not 64 channels wide, by width: ViT-H/14 and ViT-bigG/14 (open_clip
``model_configs``)."""
OPENAI_WIDTHS = (768, 1024)
"""Widths of OpenAI's encoders (ViT-B and ViT-L), whose MLPs have the quick GELU; LAION's have the exact one."""
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_LAYER_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_TOP_NAMES = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
}


def load_encoder(file: WeightsFile, compute: Compute) -> ClipImageEncoder:
    """The image encoder of a file.  Raises CheckpointError for a file that holds none."""
    weights = _plain_names(tensors_of(file, compute))
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    config = config_of(shapes)
    with torch.device("meta"):
        network = ClipImageEncoder(config)
    missing = [name for name in network.state_dict() if name not in weights]
    if missing:
        raise CheckpointError(f"{file.path.name} is no whole CLIP image encoder: {missing[0]} is missing.")
    network.load_state_dict({name: weights[name] for name in network.state_dict()}, assign=True)
    return network.requires_grad_(False).eval()


def config_of(shapes: Mapping[str, tuple[int, ...]]) -> ClipImageConfig:
    """The sizes that fit tensors of these names and shapes.  Raises CheckpointError."""
    width = shapes.get("vision_model.embeddings.class_embedding", (0,))[0]
    config = ClipImageConfig.from_shapes(shapes, HEADS.get(width))
    return replace(config, quick_gelu=width in OPENAI_WIDTHS or width < min(OPENAI_WIDTHS))


def picture_tensor(pixels: Levels, side: int, compute: Compute) -> Tensor:
    """The picture (1, 3, side, side) as CLIP was trained to see it: resized (bicubic), its middle cut out, normed."""
    image = Image.fromarray(pixels)
    width, height = (side * length // min(image.size) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    levels = np.asarray(image.crop((left, top, left + side, top + side)), np.float32) / 255
    normed = (levels - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return torch.from_numpy(normed).permute(2, 0, 1)[None].to(compute.device, compute.dtype)


def vector(encoder: ClipImageEncoder, pictures: Tensor) -> Tensor:
    """The picture as one vector (B, projection)."""
    projected: Tensor = encoder(pictures)
    return projected


def last_but_one(encoder: ClipImageEncoder, pictures: Tensor) -> Tensor:
    """The picture as tokens (B, 1 + patches, width): what the last layer but one leaves."""
    vision = encoder.vision_model
    hidden: Tensor = vision.pre_layrnorm(vision.embeddings(pictures))
    for layer in list(vision.encoder.layers)[:-1]:
        hidden = layer(hidden)
    return hidden


def plain_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes under transformers' names, of a file in either program's names."""
    with torch.device("meta"):
        return {name: tuple(one.shape) for name, one in _plain_names(_empty(shapes)).items()}


def _empty(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape) for name, shape in shapes.items()}


def _plain_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under transformers' names."""
    inner = {name.partition("visual.")[2]: tensor for name, tensor in weights.items() if "visual." in name}
    if "class_embedding" not in inner:
        return weights
    return dict(_renamed(inner))


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {theirs: weights[ours] for ours, theirs in _TOP_NAMES.items() if ours in weights}
    if "proj" in weights:
        renamed["visual_projection.weight"] = weights["proj"].T.contiguous()
    for name, tensor in weights.items():
        if not name.startswith("transformer.resblocks."):
            continue
        number, _, rest = name.removeprefix("transformer.resblocks.").partition(".")
        layer = f"vision_model.encoder.layers.{number}"
        if rest.startswith("attn.in_proj_"):
            kind = rest.removeprefix("attn.in_proj_")
            for part, projection in zip(tensor.chunk(3), ("q_proj", "k_proj", "v_proj"), strict=True):
                renamed[f"{layer}.self_attn.{projection}.{kind}"] = part.contiguous()
        else:
            part_name, _, kind = rest.rpartition(".")
            renamed[f"{layer}.{_LAYER_NAMES[part_name]}.{kind}"] = tensor
    return renamed
