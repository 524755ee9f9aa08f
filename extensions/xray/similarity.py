"""words -> how alike they are to the text encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from webui.model import Model
from webui.prompt.tokenizer import BOS, EOS

MOST_WORDS = 20


def similarity(texts: Sequence[str], model: Model, clip_skip: int) -> list[list[float]]:
    """The cosine between the vectors of each two words, -1 to 1; each word is encoded alone.

    The vector is the hidden state at the end mark, which CLIP compares with pictures' (Radford et al. 2021,
    arXiv:2103.00020, section 2.4), without the projection, which SD1 checkpoints lack.
    """
    rows, ends = [], []
    for text in texts:
        tokens = model.tokenizer.tokenise(text)[:75]
        rows.append([BOS, *tokens, *[EOS] * (76 - len(tokens))])
        ends.append(1 + len(tokens))
    device = model.compute.device
    states = model.text_encoder(torch.tensor(rows, device=device), clip_skip=clip_skip).float()
    vectors = F.normalize(states[torch.arange(len(rows)), torch.tensor(ends)], dim=-1)
    return [[round(float(value), 4) for value in row] for row in vectors @ vectors.T]
