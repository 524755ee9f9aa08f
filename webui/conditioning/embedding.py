"""Textual inversion (Gal et al. 2022, arXiv:2208.01618): files of vectors that stand in for a word of the prompt.

The word is the file's name without suffix, or what a picture that holds an embedding states; a LoRA may bring words of
its own (AUTOMATIC1111 ``extensions-builtin/Lora/networks.py``).  Called by the engine, which reads headers to know how
many tokens a word takes, and by ``text`` for the vectors.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from webui.checkpoints import pictures
from webui.checkpoints.formats import BUILT_IN, Formats
from webui.checkpoints.keys import Shapes
from webui.errors import CheckpointError
from webui.prompt.chunks import CHUNK_TOKENS, Word, words_in

if TYPE_CHECKING:
    from torch import Tensor

    from webui.model import Model
    from webui.prompt.tokenizer import Tokenizer

_NAMES = ("emb_params", "clip_l")
"""Names of the vectors for CLIP ViT-L: AUTOMATIC1111's, and that of files for several text encoders."""
_TERMS = "string_to_param."
"""Before the names of vectors in AUTOMATIC1111's own .pt and .bin files, which hold one term each."""
BUNDLE = "bundle_emb."
"""Before the word and the names of vectors that a LoRA file brings along."""
_LISTED = re.compile(r"\d+(\..*)?")
"""Names of vectors in a file that is a list of tensors, or of tables of tensors."""


@dataclass(frozen=True)
class Embedding:
    """A word and the vectors (n, width), float32, that replace its tokens."""

    word: Word
    vectors: Tensor


def words(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    files: Mapping[str, Path],
    bundled: Container[str] = (),
    formats: Formats = BUILT_IN,
) -> tuple[Word, ...]:
    """The words among ``files`` that occur in any of the texts, each with the number of vectors its file holds.

    ``bundled`` are those whose file is a LoRA.  Reads only headers, and only of files that occur.  Raises
    CheckpointError for one that holds no vectors.
    """
    found = dict.fromkeys(name for text in texts for name in words_in(text, tokenizer, files))
    return tuple(
        Word(name, tuple(tokenizer.tokenise(name)), _shape(files[name], _prefix(name, bundled), formats)[0])
        for name in found
    )


def bundled_words(path: Path, formats: Formats = BUILT_IN) -> tuple[str, ...]:
    """The words that a LoRA file brings along, none for most."""
    names = (name.removeprefix(BUNDLE) for name in formats.read_header(path).tensors if name.startswith(BUNDLE))
    return tuple(dict.fromkeys(name.partition(".")[0] for name in names))


def load(word: Word, path: Path, model: Model, *, bundled: bool = False, formats: Formats = BUILT_IN) -> Embedding:
    """The vectors of a file, which is a LoRA where they are ``bundled`` with it.

    Raises CheckpointError when they are not as wide as the model's text encoder."""
    vectors = _read(path, _prefix(word.name, {word.name} if bundled else ()), formats).to(model.compute.device)
    width = vectors.shape[1]
    expected = model.text_encoder.config.width
    if width != expected:
        raise CheckpointError(
            f'The embedding "{word.name}" has vectors of {width} numbers, but the text encoder of {model.name} takes '
            f"{expected}. It was made for another kind of model; use one that fits, or leave the word out."
        )
    return Embedding(word, vectors)


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its name."""
    return path.suffix.lower() in pictures.SUFFIXES


def _prefix(word: str, bundled: Container[str]) -> str:
    return f"{BUNDLE}{word}." if word in bundled else ""


def _shape(path: Path, prefix: str, formats: Formats) -> tuple[int, int]:
    """How many vectors of how many numbers a file holds."""
    found = pictures.embedding_in(path) if is_picture(path) else None
    if found is not None:
        return _fitting((found.vectors.shape[0], found.vectors.shape[1]), path)
    return _vectors(formats.read_header(path).shapes(prefix), path)[1]


def _read(path: Path, prefix: str, formats: Formats) -> Tensor:
    """The vectors of a file, (n, width), float32."""
    import torch

    found = pictures.embedding_in(path) if is_picture(path) else None
    if found is not None:
        return torch.from_numpy(found.vectors.copy())
    file = formats.open(path)
    names, shape = _vectors(file.header.shapes(prefix), path)
    tensors = file.load(prefix, torch.float32, torch.device("cpu"), lambda name: name in names)
    return torch.cat([tensors[name].reshape(-1, shape[1]) for name in names])


def _vectors(found: Shapes, path: Path) -> tuple[list[str], tuple[int, int]]:
    """The names of the tensors that hold the vectors, and (n, width) of all of them.

    Several only where the file is a list; a file's only tensor is it by any name.
    """
    names = list(found)
    known = [name for name in _NAMES if name in found][:1]
    terms = [name for name in names if name.startswith(_TERMS)]
    listed = names if all(_LISTED.fullmatch(name) for name in names) else names[: len(names) == 1]
    chosen = known or terms or listed
    shapes = [found[name] for name in chosen]
    if len(terms) > 1 and not known:
        raise CheckpointError(f"{path.name} has {len(terms)} words ({', '.join(terms[:3])}); an embedding has one.")
    widths = {shape[-1] for shape in shapes if shape}
    if not chosen or len(widths) != 1 or not all(0 < len(shape) < 3 and all(shape) for shape in shapes):
        raise CheckpointError(f'{path.name} is no embedding: it has no tensor "{_NAMES[0]}" of shape (vectors, width).')
    count = sum(1 if len(shape) == 1 else shape[0] for shape in shapes)
    return chosen, _fitting((count, widths.pop()), path)


def _fitting(shape: tuple[int, int], path: Path) -> tuple[int, int]:
    if shape[0] > CHUNK_TOKENS:
        raise CheckpointError(f"{path.name} has {shape[0]} vectors; at most {CHUNK_TOKENS} fit into a prompt's chunk.")
    return shape
