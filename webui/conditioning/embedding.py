"""Textual inversion (Gal et al. 2022, arXiv:2208.01618): files of vectors that stand in for a word of the prompt.

The word is the file's name without suffix.  Called by the engine, which reads headers to know how many tokens a word
takes, and by ``text`` for the vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from webui.checkpoints.formats import Header, SafetensorsFile, read_header
from webui.errors import CheckpointError
from webui.prompt.chunks import CHUNK_TOKENS, Word, words_in

if TYPE_CHECKING:
    from torch import Tensor

    from webui.model import Model
    from webui.prompt.tokenizer import Tokenizer

_NAMES = ("emb_params", "clip_l")
"""Names of the vectors for CLIP ViT-L: AUTOMATIC1111's, and that of files for several text encoders."""


@dataclass(frozen=True)
class Embedding:
    """A word and the vectors (n, width), float32, that replace its tokens."""

    word: Word
    vectors: Tensor


def words(texts: Sequence[str], tokenizer: Tokenizer, files: Mapping[str, Path]) -> tuple[Word, ...]:
    """The words among ``files`` that occur in any of the texts, each with the number of vectors its file holds.

    Reads only headers, and only of files that occur.  Raises CheckpointError for one that holds no vectors.
    """
    found = dict.fromkeys(name for text in texts for name in words_in(text, tokenizer, files))
    return tuple(
        Word(name, tuple(tokenizer.tokenise(name)), _vectors(read_header(files[name]), files[name])[1][0])
        for name in found
    )


def load(word: Word, path: Path, model: Model) -> Embedding:
    """The vectors of a file.  Raises CheckpointError when they are not as wide as the model's text encoder."""
    import torch

    file = SafetensorsFile.open(path)
    name, (count, width) = _vectors(file.header, path)
    expected = model.text_encoder.config.width
    if width != expected:
        raise CheckpointError(
            f'The embedding "{word.name}" has vectors of {width} numbers, but the text encoder of {model.name} takes '
            f"{expected}. It was made for another kind of model; use one that fits, or leave the word out."
        )
    tensors = file.load("", torch.float32, model.compute.device, lambda tensor: tensor == name)
    return Embedding(word, tensors[name].view(count, width))


def _vectors(header: Header, path: Path) -> tuple[str, tuple[int, int]]:
    """The name of the tensor that holds the vectors, and (n, width).  A file's only tensor is it by any name."""
    names = [name for name in _NAMES if name in header.tensors] or list(header.tensors)
    shape = header.tensors[names[0]].shape if names else ()
    if len(shape) == 1:
        shape = (1, *shape)
    if len(shape) != 2 or not all(shape) or (names[0] not in _NAMES and len(names) > 1):
        raise CheckpointError(f'{path.name} is no embedding: it has no tensor "{_NAMES[0]}" of shape (vectors, width).')
    if shape[0] > CHUNK_TOKENS:
        raise CheckpointError(f"{path.name} has {shape[0]} vectors; at most {CHUNK_TOKENS} fit into a prompt's chunk.")
    return names[0], (shape[0], shape[1])
