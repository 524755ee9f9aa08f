"""The UNet: a noisy latent, its timestep and the prompt's context -> what the model predicts.

``UNetModel`` of Rombach et al. 2022 (arXiv:2112.10752) with the parameter names of CompVis/stable-diffusion
``ldm/modules/diffusionmodules/openaimodel.py`` and ``ldm/modules/attention.py``, which are those of an SD1 file below
``model.diffusion_model.``.

Adapters never patch the network: they fill :class:`Openings`, which one call reads and then forgets.  Its first half,
:class:`Encoder`, is also the body of a ControlNet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from webui.errors import CheckpointError
from webui.networks.attention import attention
from webui.networks.kernels import Conv3x3, Linear, linear
from webui.networks.token_merging import Merging, merging

Depths = tuple[tuple[int, ...], ...]
Name = TypeVar("Name", str, int)
SourceChange = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""What attention takes its keys and its values from, (B, T, D) each, to what it takes them from instead."""


Read = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A source (B, T, D) -> the keys and the values, (B, T, heads * d) each, that an attention makes of it."""


def _unread(source: Tensor) -> tuple[Tensor, Tensor]:
    raise ValueError("This attention belongs to no network, so that it can read nothing.")


@dataclass(frozen=True, kw_only=True)
class Attending:
    """One attention of a call, before it is computed.

    ``site`` is its name among the network's modules, such as ``input_blocks.4.1.transformer_blocks.0.attn1``;
    ``is_cross`` tells whether it reads the context.  ``size`` (h, w) are the places of the latent there; with merged
    tokens there are fewer queries.  ``query`` is (B, N, heads * d), ``key`` and ``value`` are (B, T, heads * d);
    ``bias`` broadcasts to (B, heads, N, T).  ``read`` makes keys and values of another source, such as a context of
    one's own, as it did of this one.
    """

    site: str
    is_cross: bool
    size: tuple[int, int]
    heads: int
    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None = None
    read: Read = _unread


Attend = Callable[[Attending], Tensor]
"""What each query gathers, (B, N, heads * d)."""
AttentionWrap = Callable[[Attending, Attend], Tensor]
"""Attention as an adapter has it: it may ask ``attend``, with other values or more than once; returns the result."""
RisingChange = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""The number of an output block, what comes up to it and the skip beside it, (B, C, h, w) each -> both, changed."""


def attend(attending: Attending) -> Tensor:
    """Attention as it is without adapters."""
    return attention(attending.query, attending.key, attending.value, attending.heads, attending.bias)


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes of the way down and of the middle; the defaults are those of Stable Diffusion 1.5.

    ``channels`` are those of each level, full resolution first.  ``input_depths`` give, for each level, the transformer
    depth after each of its ResBlocks, 0 for none.  ``middle_depth`` is that of the middle block.  Attention has
    ``heads`` heads everywhere, or as many of ``head_width`` channels as fit when ``heads`` is None.
    """

    in_channels: int = 4
    model_channels: int = 320
    time_channels: int = 1280
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    input_depths: Depths = ((1, 1), (1, 1), (1, 1), (0, 0))
    middle_depth: int = 1
    context_channels: int = 768
    linear_projection: bool = False
    heads: int | None = 8
    head_width: int = 64
    norm_groups: int = 32

    def heads_at(self, channels: int) -> int:
        """How many heads attention over that many channels has."""
        return self.heads or max(1, channels // self.head_width)

    @property
    def factor(self) -> int:
        """Latent sides that are multiples of this halve evenly down to the deepest level; others work too."""
        return int(2 ** (len(self.channels) - 1))

    @property
    def last_input_blocks(self) -> tuple[int, ...]:
        """The number of the last input block of each level, before it is halved: 2, 5, 8, 11 for SD1."""
        return tuple(
            sum(len(depths) + 1 for depths in self.input_depths[: i + 1]) - 1 for i in range(len(self.channels))
        )

    @classmethod
    def from_shapes(
        cls, shapes: Mapping[str, tuple[int, ...]], heads: int | None = None, norm_groups: int | None = None
    ) -> EncoderConfig:
        """The config that fits tensors of these names (``input_blocks.*``, ``middle_block.*``, …) and shapes.

        Heads and norm groups leave no trace in the shapes.  None means SD1's rule: 8 heads where ``proj_in`` is a
        convolution, 64 channels a head where it is a linear layer; and 32 groups.  Raises CheckpointError when a tensor
        that tells a size is missing, or for a network of another kind.
        """
        if "label_emb.0.0.weight" in shapes:
            raise CheckpointError(
                "This UNet takes a pooled text vector (SDXL, unCLIP); only the SD1 kind is known here."
            )
        with _missing_named():
            return _read_encoder(shapes, heads, norm_groups or 32)


@dataclass(frozen=True)
class UNetConfig(EncoderConfig):
    """The sizes of a UNet; the defaults are those of Stable Diffusion 1.5.

    ``output_depths`` are those of each level on the way up, deepest first: one more ResBlock a level than on the way
    down.
    """

    out_channels: int = 4
    output_depths: Depths = ((0, 0, 0), (1, 1, 1), (1, 1, 1), (1, 1, 1))

    @classmethod
    def from_shapes(
        cls, shapes: Mapping[str, tuple[int, ...]], heads: int | None = None, norm_groups: int | None = None
    ) -> UNetConfig:
        """As :meth:`EncoderConfig.from_shapes`, and ``output_blocks.*`` and ``out.*`` as well."""
        encoder = EncoderConfig.from_shapes(shapes, heads, norm_groups)
        with _missing_named():
            out_channels = shapes["out.2.weight"][0]
        output = [_depth(shapes, f"{block}.1") for block in _blocks(shapes, "output_blocks")]
        counts = [len(level) + 1 for level in reversed(encoder.input_depths)]
        starts = [sum(counts[:level]) for level in range(len(counts))]
        depths = tuple(tuple(output[start : start + count]) for start, count in zip(starts, counts, strict=True))
        return cls(**vars(encoder), out_channels=out_channels, output_depths=depths)


@contextmanager
def _missing_named() -> Iterator[None]:
    try:
        yield
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"The UNet is incomplete: {error} is missing or has another shape.") from error


def _read_encoder(shapes: Mapping[str, tuple[int, ...]], heads: int | None, groups: int) -> EncoderConfig:
    model_channels, in_channels = shapes["input_blocks.0.0.weight"][:2]
    channels: list[int] = []
    input_depths: list[list[int]] = [[]]
    for block in _blocks(shapes, "input_blocks")[1:]:
        if f"{block}.0.op.weight" in shapes:
            input_depths.append([])
            continue
        input_depths[-1].append(_depth(shapes, f"{block}.1"))
        channels[len(input_depths) - 1 :] = [shapes[f"{block}.0.out_layers.3.weight"][0]]
    if any(width % groups for width in channels):
        raise CheckpointError(f"A UNet with {channels} channels cannot be normalised in {groups} groups.")
    linear = any(name.endswith(".proj_in.weight") and len(shape) == 2 for name, shape in shapes.items())
    context = [shape[1] for name, shape in shapes.items() if name.endswith(".attn2.to_k.weight")]
    return EncoderConfig(
        in_channels=in_channels,
        model_channels=model_channels,
        time_channels=shapes["time_embed.0.weight"][0],
        channels=tuple(channels),
        input_depths=tuple(map(tuple, input_depths)),
        middle_depth=_depth(shapes, "middle_block.1"),
        context_channels=context[0],
        linear_projection=linear,
        heads=heads or (None if linear else 8),
        norm_groups=groups,
    )


def _blocks(shapes: Mapping[str, tuple[int, ...]], side: str) -> list[str]:
    numbers = {int(name.split(".")[1]) for name in shapes if name.startswith(f"{side}.")}
    return [f"{side}.{number}" for number in range(len(numbers))]


def _depth(shapes: Mapping[str, tuple[int, ...]], block: str) -> int:
    prefix = f"{block}.transformer_blocks."
    return len({name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)})


@dataclass(frozen=True, kw_only=True)
class Openings:
    """What adapters hand to one UNet call, every part optional.  Tensors have the call's batch size or 1 first.

    ``skip_residuals`` are added to the skips in the order of the input blocks (ControlNet, arXiv:2302.05543), and
    ``middle_residual`` to the middle block's output.  ``input_residuals`` are added, by the number of an input block,
    to what that block leaves, so that the blocks after it read them too (T2I-Adapter, arXiv:2302.08453).
    ``extra_context`` (B, T', D) are tokens that cross-attention reads after the prompt's.  ``attention_bias``
    (B, T, h, w) is added to the logits of cross-attention to the prompt's tokens at each latent place; h and w may be
    1, and are resampled (nearest) to each resolution;
    ``extra_context_bias`` is the same for the extra tokens.  ``extra_channels`` (B, C', h, w) are concatenated to the
    latent.  ``weight_deltas`` are added to parameters, by name, for the call only.  ``source_changes`` change, one
    after the other, what every attention takes its keys and values from, be it the latent's places or the context.
    ``merged_tokens`` is the share of tokens that self-attention at full resolution leaves out (arXiv:2303.17604), from
    0 to 0.75.  ``attention_wraps`` stand around every attention, the first one outermost.  ``rising_changes`` change,
    one after the other, what output blocks read.  ``attention_kind`` computes attention in place of :func:`attend`.
    """

    skip_residuals: tuple[Tensor, ...] = ()
    middle_residual: Tensor | None = None
    input_residuals: Mapping[int, Tensor] = field(default_factory=dict)
    extra_context: Tensor | None = None
    attention_bias: Tensor | None = None
    extra_context_bias: Tensor | None = None
    extra_channels: Tensor | None = None
    weight_deltas: Mapping[str, Tensor] = field(default_factory=dict)
    source_changes: tuple[SourceChange, ...] = ()
    merged_tokens: float = 0.0
    attention_wraps: tuple[AttentionWrap, ...] = ()
    rising_changes: tuple[RisingChange, ...] = ()
    attention_kind: Attend | None = None

    def merged(self, other: Openings) -> Openings:
        """Both at once: residuals, biases and deltas add up; tokens, channels and changes stand one after the other.

        Of two shares of merged tokens the larger one holds, of two kinds of attention the other's.
        """
        return Openings(
            skip_residuals=_sum_each(self.skip_residuals, other.skip_residuals),
            middle_residual=_sum(self.middle_residual, other.middle_residual),
            input_residuals=_sum_named(self.input_residuals, other.input_residuals),
            extra_context=_joined(self.extra_context, other.extra_context),
            attention_bias=_sum_bias(self.attention_bias, other.attention_bias),
            extra_context_bias=_joined_bias(self, other),
            extra_channels=_joined(self.extra_channels, other.extra_channels),
            weight_deltas=_sum_named(self.weight_deltas, other.weight_deltas),
            source_changes=self.source_changes + other.source_changes,
            merged_tokens=max(self.merged_tokens, other.merged_tokens),
            attention_wraps=self.attention_wraps + other.attention_wraps,
            rising_changes=self.rising_changes + other.rising_changes,
            attention_kind=other.attention_kind or self.attention_kind,
        )


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _sum_each(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    if not first or not second:
        return first or second
    return tuple(a + b for a, b in zip(first, second, strict=True))


def _sum_named(first: Mapping[Name, Tensor], second: Mapping[Name, Tensor]) -> dict[Name, Tensor]:
    return {**first, **second, **{name: first[name] + second[name] for name in first if name in second}}


def _sum_bias(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The sum of two biases, resampled to the finer of their sizes."""
    if first is None or second is None:
        return second if first is None else first
    size = (max(first.shape[2], second.shape[2]), max(first.shape[3], second.shape[3]))
    return _resampled(first, size) + _resampled(second, size)


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Concatenated along dimension 1, a batch of one repeated where the other has more."""
    if first is None or second is None:
        return second if first is None else first
    batch = max(len(first), len(second))
    return torch.cat([part.expand(batch, *part.shape[1:]) for part in (first, second)], dim=1)


def _joined_bias(first: Openings, second: Openings) -> Tensor | None:
    if first.extra_context_bias is None and second.extra_context_bias is None:
        return None
    biases = [_extra_bias(part) for part in (first, second)]
    present = [bias for bias in biases if bias is not None]
    size = (max(bias.shape[2] for bias in present), max(bias.shape[3] for bias in present))
    first_bias, second_bias = (None if bias is None else _resampled(bias, size) for bias in biases)
    return _joined(first_bias, second_bias)


def _extra_bias(openings: Openings) -> Tensor | None:
    """The bias of the extra tokens, zeros where it is not given; None without extra tokens."""
    if openings.extra_context is None or openings.extra_context_bias is not None:
        return openings.extra_context_bias
    return openings.extra_context.new_zeros(1, openings.extra_context.shape[1], 1, 1)


def _resampled(bias: Tensor, size: tuple[int, int]) -> Tensor:
    return bias if bias.shape[2:] == size else F.interpolate(bias, size, mode="nearest-exact")


@dataclass(frozen=True)
class _Reading:
    """What attention is told: cross-attention's tokens (B, T, D) and the bias (B, T, h, w) on their logits.

    ``changes`` are those to the source of every attention, and ``attend`` computes each.  Self-attention merges the
    share ``merged_tokens`` of its tokens where the latent has its ``full_size``.
    """

    context: Tensor
    bias: Tensor | None
    changes: tuple[SourceChange, ...] = ()
    merged_tokens: float = 0.0
    full_size: tuple[int, int] = (0, 0)
    attend: Attend = attend

    @classmethod
    def of(cls, context: Tensor, openings: Openings, size: tuple[int, int]) -> _Reading:
        tokens, bias = _tokens_and_bias(context, openings)
        wrapped = openings.attention_kind or attend
        for wrap in reversed(openings.attention_wraps):
            wrapped = partial(_wrapped, wrap, wrapped)
        return cls(tokens, bias, openings.source_changes, openings.merged_tokens, size, wrapped)

    def bias_at(self, size: tuple[int, int]) -> Tensor | None:
        """The bias as attention takes it, (B, 1, h * w, T), or None."""
        if self.bias is None:
            return None
        return _resampled(self.bias, size).flatten(2).transpose(1, 2)[:, None]

    def merged_at(self, size: tuple[int, int]) -> float:
        """The share of tokens that self-attention merges at a resolution."""
        return self.merged_tokens if size == self.full_size else 0.0


def _wrapped(wrap: AttentionWrap, inner: Attend, attending: Attending) -> Tensor:
    return wrap(attending, inner)


def _tokens_and_bias(context: Tensor, openings: Openings) -> tuple[Tensor, Tensor | None]:
    """All tokens that cross-attention reads, and the bias on their logits."""
    extra = openings.extra_context
    if extra is None:
        return context, openings.attention_bias
    tokens = torch.cat([context, extra.to(context).expand(len(context), -1, -1)], dim=1)
    prompt_bias, extra_bias = openings.attention_bias, openings.extra_context_bias
    if prompt_bias is None and extra_bias is None:
        return tokens, None
    zeros = context.new_zeros(1, context.shape[1], 1, 1)
    whole = Openings(extra_context=context, extra_context_bias=zeros if prompt_bias is None else prompt_bias)
    return tokens, _joined_bias(whole, openings)


@dataclass(frozen=True)
class Encoded:
    """What the way down and the middle leave: the skips in order, the middle block's output, and what was read."""

    skips: list[Tensor]
    middle: Tensor
    embedding: Tensor
    reading: _Reading


class Encoder(nn.Module):
    """The way down and the middle, whose weights a UNet and its ControlNets have in common by name."""

    def __init__(self, config: EncoderConfig) -> None:
        """Build the layers; on the ``meta`` device no memory is touched."""
        super().__init__()
        self.time_embed = nn.Sequential(
            Linear(config.model_channels, config.time_channels),
            nn.SiLU(),
            Linear(config.time_channels, config.time_channels),
        )
        self.input_blocks, self.skip_channels = _input_blocks(config)
        deepest = config.channels[-1]
        self.middle_block = _Block(
            _ResBlock(deepest, deepest, config),
            *_transformer(deepest, config.middle_depth, config),
            _ResBlock(deepest, deepest, config),
        )
        self.model_channels = config.model_channels
        _name_sites(self)

    def encoded(self, x: Tensor, timesteps: Tensor, context: Tensor, openings: Openings) -> Encoded:
        """The skips and the middle for a latent ``x`` (B, C, h, w), in the dtype of the weights.

        Of the openings, those for tokens, channels and input blocks are read; residuals to skips and middle are not.
        Raises ValueError for a residual to an input block that is not there.
        """
        weight = next(self.parameters())
        hidden = x if openings.extra_channels is None else _joined_to(x, openings.extra_channels)
        hidden = hidden.to(weight.device, weight.dtype, memory_format=torch.channels_last)
        reading = _Reading.of(context.to(weight), openings, (x.shape[2], x.shape[3]))
        embedding = F.silu(self.time_embed(timestep_embedding(timesteps, self.model_channels).to(weight)))
        skips: list[Tensor] = []
        _require_blocks(openings.input_residuals, len(self.input_blocks))
        for number, block in enumerate(self.input_blocks):
            hidden = block(hidden, embedding, reading)
            if number in openings.input_residuals:
                hidden = hidden + openings.input_residuals[number].to(hidden)
            skips.append(hidden)
        return Encoded(skips, self.middle_block(hidden, embedding, reading), embedding, reading)


class UNet(Encoder):
    """The noise predictor.  It holds its weights and nothing else; a call leaves it as it was."""

    def __init__(self, config: UNetConfig) -> None:
        """Build the layers; on the ``meta`` device no memory is touched."""
        super().__init__(config)
        self.config = config
        self.output_blocks = _output_blocks(config, self.skip_channels)
        self.out = nn.Sequential(
            nn.GroupNorm(config.norm_groups, config.channels[0], eps=1e-5),
            nn.SiLU(inplace=True),
            Conv3x3(config.channels[0], config.out_channels),
        )
        _name_sites(self)

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, openings: Openings | None = None) -> Tensor:
        """The prediction (B, C, h, w), in the dtype of ``x``, for a latent ``x`` (B, C, h, w) of any size.

        ``timesteps`` (B,) are those of training, 0 to 999, fractions allowed.  ``context`` (B, T, D) is the encoded
        prompt, any number of tokens.  Computed in the dtype of the weights.  Raises ValueError when an opening does
        not fit this network.
        """
        openings = openings or Openings()
        if openings.weight_deltas:
            return self._with_deltas(x, timesteps, context, openings)
        below = self.encoded(x, timesteps, context, openings)
        skips, hidden = _with_residuals(below.skips, openings.skip_residuals), below.middle
        if openings.middle_residual is not None:
            hidden = hidden + openings.middle_residual.to(hidden)
        for number, block in enumerate(self.output_blocks):
            skip = skips.pop()
            for change in openings.rising_changes:
                hidden, skip = change(number, hidden, skip)
            hidden = torch.cat([hidden, skip], dim=1)
            hidden = block(hidden, below.embedding, below.reading, skips[-1].shape[2:] if skips else None)
        predicted: Tensor = self.out(hidden)
        return predicted.to(x)

    def _with_deltas(self, x: Tensor, timesteps: Tensor, context: Tensor, openings: Openings) -> Tensor:
        parameters = dict(self.named_parameters())
        unknown = sorted(set(openings.weight_deltas) - set(parameters))
        if unknown:
            raise ValueError(f'The UNet has no parameter "{unknown[0]}" ({len(unknown)} such weight deltas).')
        changed = {
            name: parameters[name] + delta.to(parameters[name]) for name, delta in openings.weight_deltas.items()
        }
        rest = Openings(**{**vars(openings), "weight_deltas": {}})
        predicted: Tensor = torch.func.functional_call(self, changed, (x, timesteps, context, rest))
        return predicted


def timestep_embedding(timesteps: Tensor, channels: int) -> Tensor:
    """Sinusoids (B, channels) in fp32 of timesteps (B,), cosines first (Ho et al. 2020, arXiv:2006.11239)."""
    half = channels // 2
    ramp = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    frequencies = torch.exp(-math.log(10000) * ramp / half)
    angles = timesteps.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _joined_to(x: Tensor, extra: Tensor) -> Tensor:
    return torch.cat([x, extra.to(x).expand(len(x), -1, -1, -1)], dim=1)


def _require_blocks(residuals: Mapping[int, Tensor], blocks: int) -> None:
    if any(not 0 <= number < blocks for number in residuals):
        raise ValueError(
            f"This UNet has input blocks 0 to {blocks - 1}, but residuals to {sorted(residuals)} were given."
        )


def _with_residuals(skips: list[Tensor], residuals: tuple[Tensor, ...]) -> list[Tensor]:
    if not residuals:
        return skips
    if len(residuals) != len(skips):
        raise ValueError(f"This UNet has {len(skips)} skips, but {len(residuals)} skip residuals were given.")
    return [skip + residual.to(skip) for skip, residual in zip(skips, residuals, strict=True)]


class _Block(nn.ModuleList):
    """A numbered block of the checkpoint: each part is handed what it reads."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(parts)

    def forward(self, x: Tensor, embedding: Tensor, reading: _Reading, size: tuple[int, int] | None = None) -> Tensor:
        for part in self:
            if isinstance(part, _ResBlock):
                x = part(x, embedding)
            elif isinstance(part, _SpatialTransformer):
                x = part(x, reading)
            elif isinstance(part, _Upsample):
                x = part(x, size)
            else:
                x = part(x)
        return x


def _input_blocks(config: EncoderConfig) -> tuple[nn.ModuleList, list[int]]:
    """The input blocks, and the channels of the skip that each one leaves."""
    before = config.model_channels
    blocks = [_Block(Conv3x3(config.in_channels, before))]
    skips = [before]
    for level, (width, depths) in enumerate(zip(config.channels, config.input_depths, strict=True)):
        if level:
            blocks.append(_Block(_Downsample(before)))
            skips.append(before)
        for depth in depths:
            blocks.append(_Block(_ResBlock(before, width, config), *_transformer(width, depth, config)))
            before = width
            skips.append(width)
    return nn.ModuleList(blocks), skips


def _output_blocks(config: UNetConfig, skips: list[int]) -> nn.ModuleList:
    before = config.channels[-1]
    remaining = list(skips)
    blocks = []
    for width, depths in zip(reversed(config.channels), config.output_depths, strict=True):
        for i, depth in enumerate(depths):
            parts = [_ResBlock(before + remaining.pop(), width, config), *_transformer(width, depth, config)]
            before = width
            if remaining and i == len(depths) - 1:
                parts.append(_Upsample(width))
            blocks.append(_Block(*parts))
    return nn.ModuleList(blocks)


def _transformer(width: int, depth: int, config: EncoderConfig) -> list[nn.Module]:
    return [_SpatialTransformer(width, depth, config)] if depth else []


class _ResBlock(nn.Module):
    def __init__(self, before: int, width: int, config: EncoderConfig) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(config.norm_groups, before, eps=1e-5),
            nn.SiLU(inplace=True),
            Conv3x3(before, width),
        )
        # The checkpoint counts a SiLU before the linear layer; here it is applied once for all blocks, in UNet.forward.
        self.emb_layers = nn.Sequential(nn.Identity(), Linear(config.time_channels, width))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(config.norm_groups, width, eps=1e-5),
            nn.SiLU(inplace=True),
            nn.Identity(),  # dropout in training
            Conv3x3(width, width),
        )
        self.skip_connection = nn.Conv2d(before, width, 1) if before != width else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        inner = self.in_layers(x).add_(self.emb_layers(embedding)[:, :, None, None])
        total: Tensor = self.out_layers(inner).add_(self.skip_connection(x))
        return total


class _Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        halved: Tensor = self.op(x)
        return halved


class _Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = Conv3x3(width, width)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        grown: Tensor = self.conv(F.interpolate(x, size, mode="nearest"))
        return grown


class _SpatialTransformer(nn.Module):
    """Attention among the places of the latent and to the context.  Places are tokens, (B, h * w, C)."""

    def __init__(self, width: int, depth: int, config: EncoderConfig) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.norm_groups, width, eps=1e-6)
        self.proj_in = _projection(width, config)
        self.transformer_blocks = nn.ModuleList(_TransformerBlock(width, config) for _ in range(depth))
        self.proj_out = _projection(width, config)

    def forward(self, x: Tensor, reading: _Reading) -> Tensor:
        size = (x.shape[2], x.shape[3])
        tokens = _project(self.norm(x).permute(0, 2, 3, 1).flatten(1, 2), self.proj_in)
        bias, merged = reading.bias_at(size), reading.merged_at(size)
        for block in self.transformer_blocks:
            tokens = block(tokens, reading, size, bias, merging(tokens, size, merged) if merged else None)
        return _project(tokens, self.proj_out).transpose(1, 2).view(x.shape) + x  # channels_last, like x


def _projection(width: int, config: EncoderConfig) -> Linear | nn.Conv2d:
    return Linear(width, width) if config.linear_projection else nn.Conv2d(width, width, 1)


def _project(tokens: Tensor, layer: Linear | nn.Conv2d) -> Tensor:
    """A linear layer, or a 1x1 convolution as the linear layer that it is, on tokens."""
    projected: Tensor = (
        linear(tokens, layer.weight.flatten(1), layer.bias) if isinstance(layer, nn.Conv2d) else layer(tokens)
    )
    return projected


class _TransformerBlock(nn.Module):
    def __init__(self, width: int, config: EncoderConfig) -> None:
        super().__init__()
        heads = config.heads_at(width)
        self.attn1 = _Attention(width, width, heads, is_cross=False)
        self.ff = _FeedForward(width)
        self.attn2 = _Attention(width, config.context_channels, heads, is_cross=True)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        reading: _Reading,
        size: tuple[int, int],
        bias: Tensor | None,
        merging: Merging | None = None,
    ) -> Tensor:
        normed = self.norm1(x)
        if merging is None:
            x = x + self.attn1(normed, normed, reading, size)
        else:
            fewer = merging.merge(normed)
            x = x + merging.unmerge(self.attn1(fewer, fewer, reading, size))
        x = x + self.attn2(self.norm2(x), reading.context, reading, size, bias)
        total: Tensor = x + self.ff(self.norm3(x))
        return total


class _Attention(nn.Module):
    """``site`` is its name in the network, which :func:`_name_sites` gives it."""

    def __init__(self, width: int, source_width: int, heads: int, *, is_cross: bool) -> None:
        super().__init__()
        self.heads = heads
        self.is_cross = is_cross
        self.site = ""
        self.to_q = Linear(width, width, bias=False)
        self.to_k = Linear(source_width, width, bias=False)
        self.to_v = Linear(source_width, width, bias=False)
        self.to_out = nn.Sequential(Linear(width, width))

    def forward(
        self, x: Tensor, source: Tensor, reading: _Reading, size: tuple[int, int], bias: Tensor | None = None
    ) -> Tensor:
        def read(source: Tensor) -> tuple[Tensor, Tensor]:
            keys, values = source, source
            for change in reading.changes:
                keys, values = change(keys, values)
            return self.to_k(keys), self.to_v(values)

        key, value = read(source)
        attending = Attending(
            site=self.site,
            is_cross=self.is_cross,
            size=size,
            heads=self.heads,
            query=self.to_q(x),
            key=key,
            value=value,
            bias=bias,
            read=read,
        )
        gathered: Tensor = self.to_out(reading.attend(attending))
        return gathered


def _name_sites(network: nn.Module) -> None:
    """Tell every attention its name in the network."""
    for name, module in network.named_modules():
        if isinstance(module, _Attention):
            module.site = name


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([_GatedGelu(width, 4 * width), nn.Identity(), Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class _GatedGelu(nn.Module):
    """GEGLU, Shazeer 2020 (arXiv:2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return F.gelu(gate).mul_(value)
