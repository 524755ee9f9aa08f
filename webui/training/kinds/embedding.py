"""Textual inversion: vectors that stand for a new word learn; the whole model stays as it is.

Gal et al. 2022 (arXiv:2208.01618, equation 2).  The vectors enter the text encoder in place of token embeddings, and
gradients reach them through the frozen UNet and text encoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webui.errors import RequestError
from webui.hooks import hookimpl
from webui.prompt.chunks import CHUNK_TOKENS
from webui.training.kinds import Materials, Task, TrainingKind, Weights

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from webui.model import Model
    from webui.networks.clip import TokenOverrides
    from webui.prompt.tokenizer import Tokenizer
    from webui.result import Pixels
    from webui.training.captions import Captions
    from webui.training.latents import Latents
    from webui.training.objective import Objective

WORD, CAPTION = "{word}", "{caption}"
TEMPLATES = "a photo of {word}, {caption}\na picture of {word}, {caption}\n{word}, {caption}"
TRAINED = "vectors"


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """The word and what it begins as.

    vectors: how many tokens of a prompt the word takes; more hold more detail
    initial: text that the vectors begin as, such as "dog"; empty: random vectors like those of other words
    word: how captions spell the word; empty: like the name of the file
    templates: captions that lack the word become one of these lines, in which {word} and {caption} are filled in
    """

    vectors: int = 4
    initial: str = ""
    word: str = ""
    templates: str = TEMPLATES

    def __post_init__(self) -> None:
        if not isinstance(self.vectors, int) or not 1 <= self.vectors <= CHUNK_TOKENS:
            raise RequestError(f"Vectors are {self.vectors!r}; they must be a whole number from 1 to {CHUNK_TOKENS}.")
        without = next((line for line in self.lines if WORD not in line), None)
        if without is not None:
            raise RequestError(f'The template "{without}" has no {WORD}, the place of the word that is taught.')
        if not self.lines:
            raise RequestError(f'There is no template; write at least one line such as "a photo of {WORD}".')

    @property
    def lines(self) -> tuple[str, ...]:
        """The templates."""
        return tuple(line.strip() for line in self.templates.splitlines() if line.strip())


@dataclass(frozen=True)
class EmbeddingTask:
    """The vectors (n, width) fp32.

    ``captions`` has a row for each item and template; in it the k-th vector stands as the token ``vocabulary + k``.
    """

    materials: Materials
    options: EmbeddingOptions
    model: Model
    objective: Objective
    latents: Latents
    captions: Captions
    trained: Mapping[str, nn.Parameter]
    initial: Mapping[str, Tensor]

    def loss(self, items: Sequence[int], step: int, random: Generator) -> Mapping[str, Tensor]:
        """The UNet's loss with the word in the captions; that of class pictures counts as the request says."""
        import torch

        from webui.training.captions import context
        from webui.training.unet_step import unet_loss

        def read(tokens: Tensor) -> Tensor:
            words, overrides = self._overridden(tokens)
            return context(self.model.text_encoder, words, overrides)

        templates = len(self.options.lines)
        drawn = torch.randint(templates, (len(items),), generator=random).tolist()
        rows = [item * templates + line for item, line in zip(items, drawn, strict=True)]
        return unet_loss(self, items, self.latents.batch(items, random), random, read, rows=rows)

    def samples(self) -> list[Pixels]:
        """A picture per sample prompt, the word in it read as the vectors so far."""
        from webui.conditioning.embedding import Embedding
        from webui.prompt.chunks import Word
        from webui.training.sampling import draw

        materials, tokenizer = self.materials, self.model.tokenizer
        vectors = self.trained[TRAINED].detach()
        names = dict.fromkeys((_word(self.options, materials), materials.request.name))
        known = [Embedding(Word(name, tuple(tokenizer.tokenise(name)), len(vectors)), vectors) for name in names]
        request = materials.request.samples
        return draw(request, self.model, materials.compute, side=materials.data.size, embeddings=known)

    def weights(self, trained: Mapping[str, Tensor]) -> Weights:
        """The vectors as AUTOMATIC1111 names them."""
        return Weights(
            {"emb_params": trained[TRAINED]},
            {
                "modelspec.architecture": "stable-diffusion-v1/textual-inversion",
                "modelspec.trigger_phrase": self.materials.request.name,
            },
        )

    def _overridden(self, tokens: Tensor) -> tuple[Tensor, TokenOverrides]:
        """Token ids (B, T) that the encoder knows, and the vectors at their places."""
        from webui.networks.clip import TokenOverrides

        vocabulary = self.model.text_encoder.config.vocabulary
        mask = tokens >= vocabulary
        vectors = self.trained[TRAINED][(tokens - vocabulary).clamp(min=0)]
        return tokens.masked_fill(mask, 0), TokenOverrides(vectors, mask)


def begin(options: EmbeddingOptions, materials: Materials) -> Task:
    """Encode the pictures, freeze the model, and make the first vectors."""
    from torch import nn

    from webui.networks.kernels import arrange
    from webui.training.captions import Captions
    from webui.training.latents import LatentCache
    from webui.training.objective import Objective

    model, request, compute = materials.model, materials.request, materials.compute
    objective = Objective.of_frozen(model.prediction, model.noise_table, request.noise)
    word = _word(options, materials)
    if not model.tokenizer.tokenise(word):
        raise RequestError(f'"{word}" cannot be written in a prompt; choose a name with letters or digits.')
    vectors = first_vectors(options, model, request.seed)
    cache = LatentCache(materials.cache, model.vae, materials.base_sha256, model.scale_factor, compute, materials.tell)
    latents = cache.latents(materials.data, flips=request.data.flip)
    for network in (model.unet, model.text_encoder):
        network.requires_grad_(False).to(compute.device, compute.dtype)
        arrange(network)
    rows = [
        _tokens(line, options.vectors, model.tokenizer, model.text_encoder.config.vocabulary)
        for item in materials.data.items
        for line in (
            [item.caption] * len(options.lines) if item.is_class else spelled(item.caption, word, options.lines)
        )
    ]
    return EmbeddingTask(
        materials=materials,
        options=options,
        model=model,
        objective=objective,
        latents=latents,
        captions=Captions.of_tokens(rows),
        trained={TRAINED: nn.Parameter(vectors.to(compute.device))},
        initial={TRAINED: vectors},
    )


def spelled(caption: str, word: str, templates: Sequence[str]) -> list[str]:
    """The caption with ``{word}`` at the word's place, for each template; the templates put it into one without it."""
    marked = re.sub(rf"(?<![\w{{]){re.escape(word)}(?!\w)", WORD, caption, flags=re.IGNORECASE)
    if WORD in marked:
        return [marked] * len(templates)
    return [template.replace(CAPTION, caption).strip(" ,") for template in templates]


def first_vectors(options: EmbeddingOptions, model: Model, seed: int) -> Tensor:
    """Vectors (n, width) fp32: those of the initial text's tokens, in turn spread over all; else normal noise with the
    mean and deviation that the token table has in each channel.
    """
    import torch

    table = model.text_encoder.text_model.embeddings.token_embedding.weight.detach().float().cpu()
    if not options.initial.strip():
        noise = torch.randn(options.vectors, table.shape[1], generator=torch.Generator().manual_seed(seed))
        return noise * table.std(dim=0) + table.mean(dim=0)
    tokens = model.tokenizer.tokenise(options.initial)
    if len(tokens) > options.vectors:
        raise RequestError(
            f'The initial text "{options.initial}" has {len(tokens)} tokens, but there are {options.vectors} vectors; '
            "use more vectors or a shorter text."
        )
    return table[[tokens[place * len(tokens) // options.vectors] for place in range(options.vectors)]].clone()


def _word(options: EmbeddingOptions, materials: Materials) -> str:
    return options.word.strip() or materials.request.name


def _tokens(text: str, vectors: int, tokenizer: Tokenizer, vocabulary: int) -> list[int]:
    """Token ids of a caption, the word's vectors as ids from ``vocabulary`` on; the first of them stays whole."""
    parts = [tokenizer.tokenise(part) for part in text.split(WORD)]
    ids = list(parts[0])
    if len(parts) > 1:
        del ids[CHUNK_TOKENS - vectors :]
    for part in parts[1:]:
        if len(ids) + vectors <= CHUNK_TOKENS:
            ids += range(vocabulary, vocabulary + vectors)
        ids += part
    return ids[:CHUNK_TOKENS]


@hookimpl
def register_training_kinds() -> list[TrainingKind]:
    """An embedding."""
    return [
        TrainingKind(
            name="embedding",
            label="Embedding",
            summary="Teach a new word for a subject or a style (textual inversion); the model stays as it is.",
            folder="embedding",
            options=EmbeddingOptions,
            begin=begin,
            defaults={"optimiser.rate": 5e-3, "steps": 1000, "batch_size": 2},
            needs_captions=False,
        )
    ]
