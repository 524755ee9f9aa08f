"""The CLIP text encoder: 77 token ids -> 77 vectors that the UNet's cross-attention reads.

The text transformer of Radford et al. 2021 (arXiv:2103.00020, section 2.4) with the parameter names of
huggingface/transformers ``models/clip/modeling_clip.py``, which are those of a CompVis SD1 file below
``cond_stage_model.transformer.``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from webui.errors import CheckpointError, RequestError
from webui.networks.attention import attention
from webui.networks.kernels import Linear

_EMBEDDINGS = "text_model.embeddings."
_LAYERS = "text_model.encoder.layers."


@dataclass(frozen=True)
class ClipTextConfig:
    """The sizes of a text encoder; the defaults are those of CLIP ViT-L/14 in Stable Diffusion 1."""

    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    vocabulary: int = 49408
    positions: int = 77

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]], heads: int | None = None) -> ClipTextConfig:
        """The config that fits tensors of these names (from ``text_model.`` on) and shapes.

        Heads leave no trace in the shapes: None means 64 channels a head, as in every published CLIP.  Raises
        CheckpointError when a tensor that tells a size is missing.
        """
        try:
            vocabulary, width = shapes[_EMBEDDINGS + "token_embedding.weight"]
            positions = shapes[_EMBEDDINGS + "position_embedding.weight"][0]
            mlp_width = shapes[_LAYERS + "0.mlp.fc1.weight"][0]
        except (KeyError, ValueError, IndexError) as error:
            raise CheckpointError(
                f"The text encoder is incomplete: {error} is missing or has another shape."
            ) from error
        layers = len({name.split(".")[3] for name in shapes if name.startswith(_LAYERS)})
        heads = heads or max(1, width // 64)
        if width % heads:
            raise CheckpointError(f"A text encoder {width} channels wide cannot have {heads} heads.")
        return cls(width, layers, heads, mlp_width, vocabulary, positions)


@dataclass(frozen=True)
class TokenOverrides:
    """Vectors that stand in for token embeddings (textual inversion).

    ``vectors`` is (B, 77, width); a token's own embedding is replaced where ``mask``, (B, 77) bool, is true.
    """

    vectors: Tensor
    mask: Tensor


class ClipTextEncoder(nn.Module):
    """Token ids to context vectors."""

    def __init__(self, config: ClipTextConfig) -> None:
        """Build the layers; on the ``meta`` device no memory is touched."""
        super().__init__()
        self.config = config
        self.text_model = _TextModel(config)

    def forward(self, tokens: Tensor, *, clip_skip: int = 1, embeddings: TokenOverrides | None = None) -> Tensor:
        """The context (B, T, width) for token ids (B, T), T at most 77, in the dtype of the weights.

        ``clip_skip`` n takes the output of the n-th layer from the end, then the final norm; 1 is the whole network.
        Raises RequestError when there are not that many layers.
        """
        if not 1 <= clip_skip <= self.config.layers:
            raise RequestError(
                f"Clip skip is {clip_skip}, but this model's text encoder takes 1 to {self.config.layers}."
            )
        model = self.text_model
        hidden = model.embeddings(tokens, embeddings)
        bias = _causal_bias(hidden)
        for layer in model.encoder.layers[: self.config.layers + 1 - clip_skip]:
            hidden = layer(hidden, bias)
        normed: Tensor = model.final_layer_norm(hidden)
        return normed


def _causal_bias(hidden: Tensor) -> Tensor:
    """(T, T): 0 where a token may look (itself and what came before), -inf elsewhere."""
    count = hidden.shape[1]
    return torch.full((count, count), float("-inf"), dtype=hidden.dtype, device=hidden.device).triu(1)


class _TextModel(nn.Module):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.width)


class _Embeddings(nn.Module):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.positions, config.width)

    def forward(self, tokens: Tensor, overrides: TokenOverrides | None) -> Tensor:
        words: Tensor = self.token_embedding(tokens)
        if overrides is not None:
            words = torch.where(overrides.mask[..., None], overrides.vectors.to(words), words)
        return words + self.position_embedding.weight[: tokens.shape[1]]


class _Encoder(nn.Module):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))


class _Layer(nn.Module):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width)
        self.self_attn = _SelfAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.width)
        self.mlp = _Mlp(config)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        hidden = hidden + self.self_attn(self.layer_norm1(hidden), bias)
        total: Tensor = hidden + self.mlp(self.layer_norm2(hidden))
        return total


class _SelfAttention(nn.Module):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_proj = Linear(config.width, config.width)
        self.k_proj = Linear(config.width, config.width)
        self.v_proj = Linear(config.width, config.width)
        self.out_proj = Linear(config.width, config.width)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        gathered = attention(self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden), self.heads, bias)
        projected: Tensor = self.out_proj(gathered)
        return projected


class _Mlp(nn.Module):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.fc1 = Linear(config.width, config.mlp_width)
        self.fc2 = Linear(config.mlp_width, config.width)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.fc1(hidden)
        projected: Tensor = self.fc2(hidden * F.sigmoid(1.702 * hidden))  # quick GELU, as OpenAI's CLIP was trained
        return projected
