"""The IP-Adapter: a picture as further tokens that cross-attention reads beside the prompt's, with weights of its own.

Ye et al. 2023 (arXiv:2308.06721): out = Attn(q, K, V) + weight * Attn(q, K', V'), before the output projection.  Files
are those of tencent-ailab/IP-Adapter: ``image_proj`` makes tokens of CLIP's answer, ``ip_adapter`` holds the keys' and
values' projections of each cross-attention, numbered 1, 3, 5, ... in the order input blocks, output blocks, middle
block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from webui.checkpoints.formats import WeightsFile
from webui.device import Compute
from webui.errors import CheckpointError
from webui.networks.attention import attention
from webui.networks.clip_image import ClipImageEncoder
from webui.networks.unet import Attend, Attending, AttentionWrap, Openings, UNet

from .clip_vision import last_but_one, picture_tensor
from .clip_vision import vector as vector_of
from .fitting import Levels
from .networks import tensors_of

HEAD_WIDTH = 64
"""Channels of a head of the resampler; the shapes do not tell."""
SIDES = ("input_blocks.", "output_blocks.", "middle_block.")


@dataclass(frozen=True, eq=False)
class IPAdapter:
    """A file: what makes tokens of CLIP's answer, and (key, value) projections by cross-attention in the file's order.

    ``reads_tokens`` tells whether it reads CLIP's tokens (plus, full face) or its vector; ``clip_width`` is how wide
    what it reads is.
    """

    projection: nn.Module
    pairs: tuple[tuple[Tensor, Tensor], ...]
    reads_tokens: bool
    clip_width: int


def load_adapter(file: WeightsFile, compute: Compute) -> IPAdapter:
    """The IP-Adapter of a file.  Raises CheckpointError for one of a kind that is not known here."""
    projection, reads_tokens, clip_width = _projection(tensors_of(file, compute, "image_proj."), file.path.name)
    weights = tensors_of(file, compute, "ip_adapter.")
    numbers = sorted({int(name.split(".")[0]) for name in weights if name.split(".")[0].isdigit()})
    try:
        pairs = [(weights[f"{n}.to_k_ip.weight"], weights[f"{n}.to_v_ip.weight"]) for n in numbers]
    except KeyError as error:
        raise CheckpointError(f"{file.path.name} is no IP-Adapter that is known here: {error} is missing.") from error
    if not pairs:
        raise CheckpointError(
            f"{file.path.name} is no IP-Adapter that is known here: it has no ip_adapter.1.to_k_ip.weight."
        )
    return IPAdapter(projection, tuple(pairs), reads_tokens, clip_width)


def _projection(weights: Mapping[str, Tensor], name: str) -> tuple[nn.Module, bool, int]:
    """What makes tokens, whether it reads CLIP's tokens, and how wide these are."""
    network: nn.Module
    if "latents" in weights:
        network, reads_tokens, width = Resampler.like(weights), True, weights["proj_in.weight"].shape[1]
    elif "proj.weight" in weights and "norm.weight" in weights:
        network, reads_tokens, width = VectorProjection.like(weights), False, weights["proj.weight"].shape[1]
    elif "proj.3.weight" in weights and "perceiver_resampler.latents" not in weights:
        network, reads_tokens, width = FaceProjection.like(weights), True, weights["proj.0.weight"].shape[1]
    else:
        raise CheckpointError(
            f"{name} is an IP-Adapter of a kind that is not supported (FaceID, PuLID, InstantID); "
            "plain, plus and full face are."
        )
    missing = [key for key in network.state_dict() if key not in weights]
    if missing:
        raise CheckpointError(f"{name} is incomplete: image_proj.{missing[0]} is missing.")
    network.load_state_dict({key: weights[key] for key in network.state_dict()}, assign=True)
    return network.requires_grad_(False).eval(), reads_tokens, width


class VectorProjection(nn.Module):
    """CLIP's vector (B, D) -> tokens (B, n, C): a linear layer, cut into tokens, and a norm."""

    def __init__(self, clip_width: int, tokens: int, width: int) -> None:
        """Build the layers."""
        super().__init__()
        self.tokens = tokens
        self.proj = nn.Linear(clip_width, tokens * width)
        self.norm = nn.LayerNorm(width)

    @classmethod
    def like(cls, weights: Mapping[str, Tensor]) -> VectorProjection:
        """One on the meta device with the sizes of these weights."""
        width = weights["norm.weight"].shape[0]
        rows, clip_width = weights["proj.weight"].shape
        with torch.device("meta"):
            return cls(clip_width, rows // width, width)

    def forward(self, vector: Tensor) -> Tensor:
        """Tokens (B, n, C)."""
        normed: Tensor = self.norm(self.proj(vector).view(len(vector), self.tokens, -1))
        return normed


class FaceProjection(nn.Module):
    """CLIP's tokens (B, T, D) -> as many tokens (B, T, C), by an MLP (``ip-adapter-full-face``)."""

    def __init__(self, clip_width: int, width: int) -> None:
        """Build the layers."""
        super().__init__()
        layers = (nn.Linear(clip_width, clip_width), nn.GELU(), nn.Linear(clip_width, width), nn.LayerNorm(width))
        self.proj = nn.Sequential(*layers)

    @classmethod
    def like(cls, weights: Mapping[str, Tensor]) -> FaceProjection:
        """One on the meta device with the sizes of these weights."""
        with torch.device("meta"):
            return cls(weights["proj.0.weight"].shape[1], weights["proj.2.weight"].shape[0])

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, C)."""
        projected: Tensor = self.proj(tokens)
        return projected


class Resampler(nn.Module):
    """CLIP's tokens (B, T, D) -> n tokens (B, n, C): a perceiver, Alayrac et al. 2022 (arXiv:2204.14198)."""

    def __init__(self, clip_width: int, inner: int, width: int, queries: int, depth: int, heads: int) -> None:
        """Build the layers."""
        super().__init__()
        self.latents = nn.Parameter(torch.empty(1, queries, inner))
        self.proj_in = nn.Linear(clip_width, inner)
        self.proj_out = nn.Linear(inner, width)
        self.norm_out = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            nn.ModuleList([_PerceiverAttention(inner, heads), _feed_forward(inner)]) for _ in range(depth)
        )

    @classmethod
    def like(cls, weights: Mapping[str, Tensor]) -> Resampler:
        """One on the meta device with the sizes of these weights."""
        inner, clip_width = weights["proj_in.weight"].shape
        depth = len({name.split(".")[1] for name in weights if name.startswith("layers.")})
        heads = max(1, weights["layers.0.0.to_q.weight"].shape[0] // HEAD_WIDTH)
        with torch.device("meta"):
            width, queries = weights["proj_out.weight"].shape[0], weights["latents"].shape[1]
            network = cls(clip_width, inner, width, queries, depth, heads)
            network.layers = nn.ModuleList(
                nn.ModuleList([_PerceiverAttention.like(weights, number, heads), _feed_forward_like(weights, number)])
                for number in range(depth)
            )
        return network

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, n, C)."""
        tokens, latents = self.proj_in(tokens), self.latents.expand(len(tokens), -1, -1)
        for layer in self.layers:
            attend, feed_forward = layer.children()
            latents = attend(tokens, latents) + latents
            latents = feed_forward(latents) + latents
        normed: Tensor = self.norm_out(self.proj_out(latents))
        return normed


class _PerceiverAttention(nn.Module):
    def __init__(self, width: int, heads: int, inner: int | None = None) -> None:
        super().__init__()
        inner = inner or HEAD_WIDTH * heads
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    @classmethod
    def like(cls, weights: Mapping[str, Tensor], number: int, heads: int) -> _PerceiverAttention:
        inner, width = weights[f"layers.{number}.0.to_q.weight"].shape
        return cls(width, heads, inner)

    def forward(self, tokens: Tensor, latents: Tensor) -> Tensor:
        tokens, latents = self.norm1(tokens), self.norm2(latents)
        keys, values = self.to_kv(torch.cat([tokens, latents], dim=1)).chunk(2, dim=-1)
        query = self.to_q(latents)
        gathered: Tensor = self.to_out(attention(query, keys.contiguous(), values.contiguous(), self.heads))
        return gathered


def _feed_forward(width: int, inner: int | None = None) -> nn.Sequential:
    inner = inner or 4 * width
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, inner, bias=False), nn.GELU(), nn.Linear(inner, width, bias=False)
    )


def _feed_forward_like(weights: Mapping[str, Tensor], number: int) -> nn.Sequential:
    inner, width = weights[f"layers.{number}.1.1.weight"].shape
    return _feed_forward(width, inner)


@torch.inference_mode()
def tokens_of(adapter: IPAdapter, encoder: ClipImageEncoder, pixels: Levels, compute: Compute, name: str) -> Tensor:
    """Tokens (2, n, C): first for the negative prompt (no picture), then of the picture.

    No picture is a vector of zeros for plain adapters, and a picture of zeros for those that read CLIP's tokens.
    Raises CheckpointError when the encoder is another one than the adapter was trained with.
    """
    side = encoder.config.image_size
    picture = picture_tensor(pixels, side, compute)
    both = torch.cat([torch.zeros_like(picture), picture])
    width = encoder.config.width if adapter.reads_tokens else encoder.config.projection
    if width != adapter.clip_width:
        raise CheckpointError(
            f"{name} reads {adapter.clip_width} numbers of CLIP vision, the file chosen for it gives {width}; "
            "put the encoder that it was trained with into models/clip_vision and choose it."
        )
    if adapter.reads_tokens:
        made: Tensor = adapter.projection(last_but_one(encoder, both))
    else:
        vector = vector_of(encoder, picture)
        made = adapter.projection(torch.cat([torch.zeros_like(vector), vector]))
    return made


def cross_attentions(unet: UNet) -> list[str]:
    """The sites of cross-attention in the order of an IP-Adapter's numbers: input blocks, output blocks, middle."""
    sites = [name for name, _ in unet.named_modules() if name.endswith(".attn2")]
    return [site for side in SIDES for site in sites if site.startswith(side)]


def pairs_of(adapter: IPAdapter, tokens: Tensor, unet: UNet, name: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Keys and values (2, n, width) of the tokens, by site.  Raises CheckpointError for an adapter of another UNet."""
    sites = cross_attentions(unet)
    modules = dict(unet.named_modules())
    expected = [tuple(modules[site].to_k.weight.shape) for site in sites]
    found = [tuple(key.shape) for key, _ in adapter.pairs]
    if [rows for rows, _ in expected] != [rows for rows, _ in found]:
        raise CheckpointError(
            f"{name} was made for another kind of model: it has {len(found)} cross-attentions "
            f"of widths {sorted({rows for rows, _ in found})}, this one {len(expected)} of "
            f"{sorted({rows for rows, _ in expected})}."
        )
    return {
        site: (F.linear(tokens, key.to(tokens)), F.linear(tokens, value.to(tokens)))
        for site, (key, value) in zip(sites, adapter.pairs, strict=True)
    }


def openings(
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    conditional: Sequence[bool],
    weight: Callable[[str], float],
    region: Tensor | None = None,
) -> Openings:
    """The openings of a call whose rows are ``conditional`` or not; ``weight`` by site.

    ``region`` (1, 1, H, W) from 0 to 1 is where the picture counts.
    """

    def wrap(attending: Attending, attend: Attend) -> Tensor:
        gathered = attend(attending)
        if not attending.is_cross or attending.site not in pairs:
            return gathered
        rows = torch.tensor([int(one) for one in conditional], device=gathered.device)
        keys, values = (part[rows].to(gathered) for part in pairs[attending.site])
        further = attention(attending.query, keys, values, attending.heads)
        if region is not None:
            further = further * _at(region, attending.size).to(further)
        return gathered + weight(attending.site) * further

    wraps: tuple[AttentionWrap, ...] = (wrap,)
    return Openings(attention_wraps=wraps)


def _at(region: Tensor, size: tuple[int, int]) -> Tensor:
    """The region at the places of one attention, (1, h * w, 1)."""
    return F.interpolate(region, size, mode="bilinear").flatten(2).transpose(1, 2)
