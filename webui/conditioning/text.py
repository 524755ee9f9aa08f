"""prompt -> context: the text encoder's hidden states for every 75-token chunk, weighted, one after the other.

Called by the pipeline once per prompt.  Rules as in AUTOMATIC1111 ``modules/sd_hijack_clip.py`` and
``modules/sd_emphasis.py`` (emphasis "Original").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webui.prompt.chunks import Chunk, chunks

if TYPE_CHECKING:
    from torch import Tensor

    from webui.model import Model


def encode(text: str, model: Model, clip_skip: int) -> Tensor:
    """The context (1, 77 * chunks, width) float32 that cross-attention reads; one chunk for an empty prompt."""
    import torch

    encoded = [_encode_chunk(chunk, model, clip_skip) for chunk in chunks(text, model.tokenizer)]
    return torch.cat(encoded, dim=1)


def _encode_chunk(chunk: Chunk, model: Model, clip_skip: int) -> Tensor:
    """One chunk (1, 77, width): hidden states times their token's weight, brought back to the mean they had."""
    import torch

    tokens = torch.tensor([chunk.tokens], device=model.compute.device)
    hidden: Tensor = model.text_encoder(tokens, clip_skip=clip_skip).float()
    weights = torch.tensor([chunk.weights], device=hidden.device)[..., None]
    weighted = hidden * weights
    scaled: Tensor = weighted * (hidden.mean() / weighted.mean())
    return scaled
