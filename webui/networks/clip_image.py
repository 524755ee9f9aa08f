"""The CLIP image encoder: a picture -> one vector that can be compared with a caption's.

The vision transformer of Radford et al. 2021 (arXiv:2103.00020, section 2.4) with the parameter names of
huggingface/transformers ``models/clip/modeling_clip.py`` (CLIPVisionModelWithProjection).  Called by ``training`` (the
kind "clip") and by what scores pictures against captions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from webui.errors import CheckpointError
from webui.networks.attention import attention
from webui.networks.kernels import Linear

_EMBEDDINGS = "vision_model.embeddings."
_LAYERS = "vision_model.encoder.layers."


@dataclass(frozen=True)
class ClipImageConfig:
    """The sizes of an image encoder, pictures and patches in pixels; the defaults are those of CLIP ViT-L/14.

    ``quick_gelu`` tells OpenAI's activation, x * sigmoid(1.702 x), from the exact GELU of LAION's encoders.
    """

    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp_width: int = 4096
    image_size: int = 224
    patch: int = 14
    projection: int = 768
    quick_gelu: bool = True

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]], heads: int | None = None) -> ClipImageConfig:
        """The config that fits tensors of these names (``vision_model.…``, ``visual_projection.weight``) and shapes.

        Heads leave no trace in the shapes: None means 64 channels a head, as in OpenAI's.  Raises
        CheckpointError when a tensor that tells a size is missing or tells an impossible one.
        """
        try:
            width, _, patch, _ = shapes[_EMBEDDINGS + "patch_embedding.weight"]
            positions = shapes[_EMBEDDINGS + "position_embedding.weight"][0]
            mlp_width = shapes[_LAYERS + "0.mlp.fc1.weight"][0]
            projection = shapes["visual_projection.weight"][0]
        except (KeyError, ValueError, IndexError) as error:
            raise CheckpointError(
                f"The image encoder is incomplete: {error} is missing or has another shape."
            ) from error
        layers = len({name.split(".")[3] for name in shapes if name.startswith(_LAYERS)})
        heads = heads or max(1, width // 64)
        side = math.isqrt(max(positions - 1, 0))
        if width % heads:
            raise CheckpointError(f"An image encoder {width} channels wide cannot have {heads} heads.")
        if not side or side * side != positions - 1:
            raise CheckpointError(
                f"An image encoder needs one position more than a square number; this one has {positions}."
            )
        return cls(width, layers, heads, mlp_width, side * patch, patch, projection)


class ClipImageEncoder(nn.Module):
    """Pictures to vectors."""

    def __init__(self, config: ClipImageConfig) -> None:
        """Build the layers; on the ``meta`` device no memory is touched."""
        super().__init__()
        self.config = config
        self.vision_model = _VisionModel(config)
        self.visual_projection = Linear(config.width, config.projection, bias=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Vectors (B, projection), not normalised, for pictures (B, 3, image_size, image_size).

        The values of the pictures are those that the weights were trained with: [-1, 1], or OpenAI's mean and
        deviation.  They and the result have the dtype of the weights.
        """
        projected: Tensor = self.visual_projection(self.vision_model(pictures))
        return projected


class _VisionModel(nn.Module):
    def __init__(self, config: ClipImageConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.width)  # the published name, misspelt
        self.encoder = _Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.width)

    def forward(self, pictures: Tensor) -> Tensor:
        hidden: Tensor = self.pre_layrnorm(self.embeddings(pictures))
        for layer in self.encoder.layers:
            hidden = layer(hidden)
        normed: Tensor = self.post_layernorm(hidden[:, 0])
        return normed


class _Embeddings(nn.Module):
    def __init__(self, config: ClipImageConfig) -> None:
        super().__init__()
        positions = (config.image_size // config.patch) ** 2 + 1
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch, config.patch, bias=False)
        self.position_embedding = nn.Embedding(positions, config.width)

    def forward(self, pictures: Tensor) -> Tensor:
        first = self.class_embedding.expand(len(pictures), 1, -1)
        return torch.cat([first, self._patches(pictures)], dim=1) + self.position_embedding.weight

    def _patches(self, pictures: Tensor) -> Tensor:
        """(B, patches, width): the convolution as one product, for its strides do not overlap."""
        side = self.patch_embedding.kernel_size[0]
        batch, colours, height, width = pictures.shape
        cut = pictures.view(batch, colours, height // side, side, width // side, side)
        flat = cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, colours * side * side)
        return F.linear(flat, self.patch_embedding.weight.flatten(1))


class _Encoder(nn.Module):
    def __init__(self, config: ClipImageConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))


class _Layer(nn.Module):
    def __init__(self, config: ClipImageConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width)
        self.self_attn = _SelfAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.width)
        self.mlp = _Mlp(config)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.self_attn(self.layer_norm1(hidden))
        total: Tensor = hidden + self.mlp(self.layer_norm2(hidden))
        return total


class _SelfAttention(nn.Module):
    def __init__(self, config: ClipImageConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_proj = Linear(config.width, config.width)
        self.k_proj = Linear(config.width, config.width)
        self.v_proj = Linear(config.width, config.width)
        self.out_proj = Linear(config.width, config.width)

    def forward(self, hidden: Tensor) -> Tensor:
        gathered = attention(self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden), self.heads)
        projected: Tensor = self.out_proj(gathered)
        return projected


class _Mlp(nn.Module):
    def __init__(self, config: ClipImageConfig) -> None:
        super().__init__()
        self.fc1 = Linear(config.width, config.mlp_width)
        self.fc2 = Linear(config.mlp_width, config.width)
        self.quick_gelu = config.quick_gelu

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.fc1(hidden)
        projected: Tensor = self.fc2(hidden * F.sigmoid(1.702 * hidden) if self.quick_gelu else F.gelu(hidden))
        return projected
