"""prompt -> context: the text encoder's hidden states for every 75-token chunk, weighted, one after the other.

Called by the pipeline once per prompt.  Rules as in AUTOMATIC1111 ``modules/sd_hijack_clip.py`` and
``modules/sd_emphasis.py`` (emphasis "Original").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from webui.prompt.chunks import Chunk, chunks

if TYPE_CHECKING:
    from torch import Tensor

    from webui.conditioning.embedding import Embedding
    from webui.model import Model
    from webui.networks.clip import TokenOverrides


def encode(text: str, model: Model, clip_skip: int, embeddings: Sequence[Embedding] = ()) -> Tensor:
    """The context (1, 77 * chunks, width) float32 that cross-attention reads; one chunk for an empty prompt.

    Where the text spells an embedding's word, the encoder reads its vectors instead of the word's tokens.
    """
    import torch

    vectors = {embedding.word.name: embedding.vectors for embedding in embeddings}
    parts = chunks(text, model.tokenizer, [embedding.word for embedding in embeddings])
    return torch.cat([_encode_chunk(chunk, model, clip_skip, vectors) for chunk in parts], dim=1)


def _encode_chunk(chunk: Chunk, model: Model, clip_skip: int, vectors: Mapping[str, Tensor]) -> Tensor:
    """One chunk (1, 77, width): hidden states times their token's weight, brought back to the mean they had."""
    import torch

    tokens = torch.tensor([chunk.tokens], device=model.compute.device)
    overrides = _overrides(chunk, model, vectors)
    hidden: Tensor = model.text_encoder(tokens, clip_skip=clip_skip, embeddings=overrides).float()
    weights = torch.tensor([chunk.weights], device=hidden.device)[..., None]
    weighted = hidden * weights
    scaled: Tensor = weighted * (hidden.mean() / weighted.mean())
    return scaled


def _overrides(chunk: Chunk, model: Model, vectors: Mapping[str, Tensor]) -> TokenOverrides | None:
    """The vectors that stand in for a chunk's placeholders; None without any."""
    import torch

    from webui.networks.clip import TokenOverrides

    if not chunk.placed:
        return None
    device, width = model.compute.device, model.text_encoder.config.width
    values = torch.zeros(1, len(chunk.tokens), width, device=device)
    mask = torch.zeros(1, len(chunk.tokens), dtype=torch.bool, device=device)
    for position, name in chunk.placed:
        rows = slice(position, position + len(vectors[name]))
        values[0, rows], mask[0, rows] = vectors[name], True
    return TokenOverrides(values, mask)
