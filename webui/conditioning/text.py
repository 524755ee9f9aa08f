"""prompt -> context: the text encoder's hidden states for every 75-token chunk, weighted, one after the other.

Called by the pipeline once per prompt.  Rules as in AUTOMATIC1111 ``modules/sd_hijack_clip.py`` and
``modules/sd_emphasis.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webui.prompt.chunks import COMMA_REACH, Chunk, chunks
from webui.prompt.schedule import Span, Timeline, at_call, schedule
from webui.request import Emphasis

if TYPE_CHECKING:
    from torch import Tensor

    from webui.conditioning.embedding import Embedding
    from webui.model import Model
    from webui.networks.clip import TokenOverrides


@dataclass(frozen=True)
class Encoder:
    """How texts become contexts: the model, the layer that is read, the embeddings and what weights do."""

    model: Model
    clip_skip: int = 1
    embeddings: tuple[Embedding, ...] = ()
    emphasis: Emphasis = Emphasis.ORIGINAL
    comma_backtrack: int = COMMA_REACH

    def encode(self, texts: Sequence[str]) -> list[Tensor]:
        """The context (1, 77 * chunks, width) float32 of each text; all as long as the longest needs.

        Texts that are encoded together share the mean that "Original" keeps, equal ones counted as often as they come.
        """
        import torch

        unique = list(dict.fromkeys(texts))
        per_text = [self.chunks(text) for text in unique]
        (empty,) = chunks("", self.model.tokenizer)
        length = max(map(len, per_text))
        rows = [[*found, *[empty] * (length - len(found))] for found in per_text]
        counted = [unique.index(text) for text in texts]
        hidden: dict[Chunk, Tensor] = {}
        columns = [self._column([row[place] for row in rows], counted, hidden) for place in range(length)]
        contexts = torch.cat(columns, dim=1)
        return [contexts[index : index + 1] for index in counted]

    def timed(self, text: str, timeline: Timeline) -> Timed:
        """What a prompt's contexts are over a pass."""
        spans = schedule(text, timeline)
        chunked = tuple(tuple(self.chunks(span.text)) for span in spans)
        return Timed(spans, tuple(self.encode([span.text for span in spans])), chunked)

    def chunks(self, text: str) -> list[Chunk]:
        """What the encoder reads of a text, chunk by chunk."""
        words = [embedding.word for embedding in self.embeddings]
        return chunks(text, self.model.tokenizer, words, self.emphasis, self.comma_backtrack)

    def _column(self, column: Sequence[Chunk], counted: Sequence[int], hidden: dict[Chunk, Tensor]) -> Tensor:
        """The chunks (N, 77, width) that stand at one place of N texts; ``hidden`` keeps what was encoded."""
        import torch

        for chunk in column:
            if chunk not in hidden:
                hidden[chunk] = self._hidden(chunk)
        states = torch.cat([hidden[chunk] for chunk in column])
        if self.emphasis in (Emphasis.IGNORE, Emphasis.NONE):
            return states
        weights = torch.tensor([chunk.weights for chunk in column], device=states.device)[..., None]
        weighted = states * weights
        if self.emphasis is Emphasis.NO_NORM:
            return weighted
        scaled: Tensor = weighted * (states[counted].mean() / weighted[counted].mean())
        return scaled

    def _hidden(self, chunk: Chunk) -> Tensor:
        """The hidden states (1, 77, width) of a chunk."""
        import torch

        tokens = torch.tensor([chunk.tokens], device=self.model.compute.device)
        vectors = {embedding.word.name: embedding.vectors for embedding in self.embeddings}
        overrides = _overrides(chunk, self.model, vectors)
        states: Tensor = self.model.text_encoder(tokens, clip_skip=self.clip_skip, embeddings=overrides).float()
        return states


@dataclass(frozen=True)
class Timed:
    """A prompt over a pass: what it says, span by span, and the context (1, tokens, width) of each.

    ``chunks`` are what each span's context was encoded from; a context that is longer was padded.
    """

    spans: tuple[Span, ...]
    contexts: tuple[Tensor, ...]
    chunks: tuple[tuple[Chunk, ...], ...]

    def at(self, call: int) -> Tensor:
        """The context for the denoiser's call ``call``, counted from 0."""
        return self.contexts[at_call(self.spans, call)]


def encode(text: str, model: Model, clip_skip: int, embeddings: Sequence[Embedding] = ()) -> Tensor:
    """The context (1, 77 * chunks, width) float32 that cross-attention reads; one chunk for an empty prompt.

    Where the text spells an embedding's word, the encoder reads its vectors instead of the word's tokens.  Brackets are
    weights; nothing else in the text means anything.
    """
    return Encoder(model, clip_skip, tuple(embeddings)).encode([text])[0]


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
