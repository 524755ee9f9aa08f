"""The files that a prompt names: LoRAs and networks of other kinds by tag, embeddings by word.

Torch-free; called by the runner for each job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from webui.checkpoints import pictures
from webui.checkpoints.formats import BUILT_IN, Formats
from webui.checkpoints.library import Library, ModelEntry
from webui.conditioning import embedding, lora
from webui.conditioning.extra_networks import LORA_USAGE, Meant, NetworkKind, NetworkKinds, NetworkUse
from webui.conditioning.lora import Applied, LoraUse
from webui.engine.job_files import Recorded
from webui.errors import WebUIError
from webui.prompt import chunks
from webui.prompt.chunks import Word
from webui.prompt.comments import without_comments
from webui.prompt.extra_networks import LoraTag, NetworkTag, extract
from webui.prompt.schedule import Timeline, schedule
from webui.prompt.tokenizer import Tokenizer
from webui.request import GenerationRequest
from webui.result import ModelFile

LORA = "lora"
EMBEDDING = "embedding"
A1111_DIGITS = 12
"""Digits of a LoRA's or embedding's hash that AUTOMATIC1111 writes."""

MAX_CALLS = 2
"""Calls of the denoiser that a sampler may count as one step."""


@dataclass(frozen=True)
class EmbeddingUse:
    """An embedding that a prompt spells; ``bundled`` with the LoRA whose file it is in."""

    word: Word
    path: Path
    sha256: str
    bundled: bool = False


@dataclass(frozen=True)
class NetworkUses:
    """The tags of one kind in a prompt, in their order."""

    kind: NetworkKind
    uses: tuple[NetworkUse, ...]

    @property
    def files(self) -> Iterable[ModelFile]:
        """Their files for the recipe, by the names that the prompt uses."""
        found = (use for use in self.uses if use.path is not None)
        return (ModelFile(role=self.kind.name, name=use.name, sha256=use.sha256) for use in found)


@dataclass(frozen=True)
class ExtraFiles:
    """What a request's prompts name beside the checkpoint.  ``loras`` holds each file once, its weights added up.

    ``request`` is the request with comments taken out of its prompts and the tags out of the first, ``ignored`` the
    tags of kinds that nobody reads, ``unused`` the arguments of LoRA tags that mean nothing here.  ``networks`` are
    those of other kinds, ``known`` the words of all tags.  ``names`` are the LoRAs' files by every name that the prompt
    uses, ``applied`` how they fitted, once that is known.  ``formats`` read them.
    """

    request: GenerationRequest
    loras: tuple[LoraUse, ...] = ()
    embeddings: tuple[EmbeddingUse, ...] = ()
    ignored: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    names: tuple[LoraUse, ...] = ()
    networks: tuple[NetworkUses, ...] = ()
    known: str = LORA_USAGE
    applied: tuple[Applied, ...] = ()
    formats: Formats = BUILT_IN

    @property
    def used(self) -> tuple[ModelFile, ...]:
        """The files for the recipe, by the names that the prompt uses."""
        counts = {file.sha256: file.tensors for file in self.applied}
        loras = (
            ModelFile(role=LORA, name=use.name, sha256=use.sha256, tensors=counts.get(use.sha256)) for use in self.names
        )
        alone = (use for use in self.embeddings if not use.bundled)
        words = (ModelFile(role=EMBEDDING, name=use.word.name, sha256=use.sha256) for use in alone)
        networks = (file for each in self.networks for file in each.files)
        return tuple(dict.fromkeys((*loras, *networks, *words)))

    @property
    def paths(self) -> frozenset[Path]:
        """Where all of them lie."""
        networks = (use.path for each in self.networks for use in each.uses if use.path is not None)
        return frozenset((*(use.path for use in self.names), *networks, *(use.path for use in self.embeddings)))

    @cached_property
    def lora_hashes(self) -> dict[str, str]:
        """AUTOMATIC1111's short hash of each LoRA by name.  Reads the files, once."""
        return {use.name: lora.a1111_hash(use.path, self.formats)[:A1111_DIGITS] for use in self.names}

    @property
    def embedding_hashes(self) -> dict[str, str]:
        """AUTOMATIC1111's short hash of each embedding by name."""
        return {use.word.name: use.sha256[:A1111_DIGITS] for use in self.embeddings if not use.bundled}

    @property
    def problem(self) -> str | None:
        """A sentence about tags that mean nothing here."""
        sentences = []
        if self.ignored:
            sentences.append(
                f"The prompt's {', '.join(self.ignored[:3])} was taken out without effect: "
                f"only {self.known} {'are' if self.known != LORA_USAGE else 'is'} known here."
            )
        if self.unused:
            sentences.append(
                f"The LoRA tags' {', '.join(self.unused[:3])} had no effect: te=, unet=, dyn= and lbw= are known here, "
                "lbw= with 12, 17, 20 or 26 numbers or the name of a list such as INALL."
            )
        return " ".join(sentences) or None


def extra_files(
    request: GenerationRequest,
    library: Library,
    tokenizer: Tokenizer,
    recorded: Recorded | None = None,
    kinds: NetworkKinds = NetworkKinds(),  # noqa: B008  # frozen
) -> ExtraFiles:
    """The files that a request's prompts name, in the models folder or, where given, among those ``recorded``.

    Raises RequestError for a LoRA or another network that is not there, and for a tag whose arguments do not fit,
    CheckpointError for an embedding that cannot be read.
    """
    extracted = extract(without_comments(request.prompt))
    plain = replace(request, prompt=extracted.text, negative_prompt=without_comments(request.negative_prompt))
    entries = embedding_entries(library) if recorded is None else _of_role(recorded, EMBEDDING)
    uses = [_lora_use(tag, library, recorded) for tag in extracted.loras]
    read = list(kinds.read(extracted.tags))
    return ExtraFiles(
        request=plain,
        loras=lora.combined(uses),
        embeddings=_embedding_uses(_said(plain), tokenizer, entries, uses, library),
        ignored=tuple(tag.text for tag in read if isinstance(tag, NetworkTag)),
        unused=tuple(dict.fromkeys(f"{word} of {tag.name}" for tag in extracted.loras for word in tag.unused)),
        names=tuple({use.name: use for use in uses}.values()),
        networks=_by_kind([tag for tag in read if isinstance(tag, Meant)], kinds, library, recorded),
        known=kinds.usage,
        formats=library.formats,
    )


def count_tokens(text: str, library: Library, tokenizer: Tokenizer) -> tuple[int, int]:
    """Tokens that a prompt takes, an embedding's word as many as its file holds, and how many fit: 75, 150, …

    A file that cannot be read counts as the words of its name.
    """
    paths = {name: entry.path for name, entry in embedding_entries(library).items()}
    said = chunks.texts(without_comments(text), Timeline(chunks.COUNTED_STEPS))
    try:
        words = embedding.words(said, tokenizer, paths, formats=library.formats)
    except WebUIError:
        words = ()
    return chunks.count_tokens(text, tokenizer, words)


def embedding_entries(library: Library) -> dict[str, ModelEntry]:
    """The embedding files by their word; of two of a word the first.

    The word is the file's name without folder and suffix, or what a picture says, as AUTOMATIC1111 has it.  A picture
    that holds no embedding is none.
    """
    entries: dict[str, ModelEntry] = {}
    for entry in library.entries(EMBEDDING):
        name = Path(entry.name).name
        if embedding.is_picture(entry.path):
            found = pictures.embedding_in(entry.path)
            name = "" if found is None else found.word or name
        if name:
            entries.setdefault(name, entry)
    return entries


def short_hashes(text: str) -> dict[str, str]:
    """The names and hashes in the value of "Lora hashes" or "TI hashes"."""
    pairs: Sequence[tuple[str, str, str]] = [part.rpartition(":") for part in text.split(",")]
    return {name.strip(): short.strip() for name, _, short in pairs if name.strip() and short.strip()}


def _said(request: GenerationRequest) -> tuple[str, ...]:
    """All that the prompts say at some step of the first pass, with as many calls as any sampler makes for its steps.

    A second pass says nothing else, except what its numbers choose between.
    """
    first = Timeline(request.sampling.steps * MAX_CALLS)
    second = replace(first, is_second_pass=True)
    prompts = (chunks.texts(request.prompt, first), chunks.texts(request.prompt, second))
    negative = (span.text for timeline in (first, second) for span in schedule(request.negative_prompt, timeline))
    return tuple(dict.fromkeys((*prompts[0], *prompts[1], *negative)))


def _embedding_uses(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    entries: Mapping[str, ModelEntry],
    loras: Sequence[LoraUse],
    library: Library,
) -> tuple[EmbeddingUse, ...]:
    """The embeddings that texts spell: files, and words of the LoRAs for which there is no file."""
    formats = library.formats
    words = ((name, use) for use in loras for name in embedding.bundled_words(use.path, formats))
    brought = {name: use for name, use in words if name not in entries}
    paths = {name: entry.path for name, entry in entries.items()} | {name: use.path for name, use in brought.items()}
    return tuple(
        EmbeddingUse(word, brought[word.name].path, brought[word.name].sha256, bundled=True)
        if word.name in brought
        else EmbeddingUse(word, entries[word.name].path, library.sha256(entries[word.name]))
        for word in embedding.words(texts, tokenizer, paths, brought, formats)
    )


def _of_role(recorded: Recorded, role: str) -> dict[str, ModelEntry]:
    return {name: entry for (kind, name), entry in recorded.items() if kind == role}


def _lora_use(tag: LoraTag, library: Library, recorded: Recorded | None) -> LoraUse:
    entry = (recorded or {}).get((LORA, tag.name)) or library.find(tag.name, LORA)
    weights = (tag.text_weight, tag.unet_weight, tag.ranks, tag.blocks)
    return LoraUse(tag.name, entry.path, library.sha256(entry), *weights)


def _by_kind(
    read: Sequence[Meant], kinds: NetworkKinds, library: Library, recorded: Recorded | None
) -> tuple[NetworkUses, ...]:
    """The uses of each kind that a prompt names, the kinds in the order of registration."""
    found = (
        NetworkUses(kind, tuple(_network_use(tag, library, recorded) for tag in read if tag.kind is kind))
        for kind in kinds.kinds.values()
    )
    return tuple(each for each in found if each.uses)


def _network_use(tag: Meant, library: Library, recorded: Recorded | None) -> NetworkUse:
    kind = tag.kind
    if not kind.folders:
        return NetworkUse(name=tag.name, options=tag.options)
    entry = (recorded or {}).get((kind.name, tag.name)) or library.find(tag.name, kind.name)
    return NetworkUse(name=tag.name, options=tag.options, path=entry.path, sha256=library.sha256(entry))
