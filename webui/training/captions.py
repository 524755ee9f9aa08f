"""captions -> context, with gradients where the text encoder learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from webui.networks.clip import ClipTextEncoder, TokenOverrides
from webui.prompt.tokenizer import BOS, EOS, Tokenizer

POSITIONS = 77
WHOLE_ONE_IN = 8
"""Where captions are read short, one batch in so many is read at all 77 positions."""
ROUND_TO = 4


@dataclass(frozen=True)
class Captions:
    """The token ids of every caption, (N, 77) int16-safe, BOS first, EOS to the end; captions are cut at 75 tokens."""

    tokens: Tensor

    @classmethod
    def of(cls, captions: Sequence[str], tokenizer: Tokenizer) -> Captions:
        """Tokenise captions; brackets and colons are words here, not weights."""
        return cls.of_tokens([tokenizer.tokenise(caption) for caption in captions])

    @classmethod
    def of_tokens(cls, captions: Sequence[Sequence[int]]) -> Captions:
        """Captions that are token ids already, without begin and end."""
        rows = torch.full((len(captions), POSITIONS), EOS, dtype=torch.int32)
        for row, caption in zip(rows, captions, strict=True):
            ids = caption[: POSITIONS - 2]
            row[0] = BOS
            row[1 : 1 + len(ids)] = torch.tensor(ids, dtype=torch.int32)
        return cls(rows)

    def batch(self, items: Sequence[int], dropout: float, random: Generator, *, short: bool = False) -> Tensor:
        """Token ids (B, T) of some captions, a ``dropout`` share of them empty.

        T is 77, the context that a model meets when it draws.  With ``short`` it is so now and then only, else what the
        longest caption needs.  The causal text encoder gives the first T places the same values either way, but a UNet
        attends to all of them, the padding behind the caption included: it tells a short context from a whole one.
        """
        tokens = self.tokens[list(items)].long()
        dropped = torch.rand(len(tokens), generator=random) < dropout
        tokens[dropped, 1:] = EOS
        if not short or int(torch.randint(WHOLE_ONE_IN, (1,), generator=random)) == 0:
            return tokens
        longest = int((tokens != EOS).sum(dim=1).max()) + 1
        return tokens[:, : min(POSITIONS, -(-(longest + ROUND_TO) // ROUND_TO) * ROUND_TO)]


def context(
    encoder: ClipTextEncoder, tokens: Tensor, embeddings: TokenOverrides | None = None, *, learns: bool = True
) -> Tensor:
    """The context (B, T, width) of token ids (B, T); no gradients go through it unless the encoder, or what is put
    into it, ``learns``.
    """
    with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
        encoded: Tensor = encoder(tokens, embeddings=embeddings)
    return encoded
