"""The index of the models folder: which files are there, under which names people call them.

The folder may be an AUTOMATIC1111 ``models`` folder; its sub-folders keep their meaning.  Listing reads names only,
never file contents, so that ten thousand files cost milliseconds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from threading import Lock

from webui.checkpoints import pictures
from webui.checkpoints.facts import FactCache
from webui.checkpoints.formats import BUILT_IN, Formats
from webui.checkpoints.hashes import HashCache
from webui.checkpoints.notes import read_notes
from webui.errors import NotFoundError, RequestError, unknown_name

FOLDERS = {
    "checkpoint": ("Stable-diffusion",),
    "vae": ("VAE", "Stable-diffusion"),
    "clip": ("CLIP",),
    "lora": ("Lora", "LyCORIS"),
    "hypernet": ("hypernetworks",),
    "controlnet": ("ControlNet", "controlnet", "T2I-Adapter", "t2i_adapter", "IP-Adapter", "ipadapter"),
    "clip_vision": ("clip_vision", "CLIP-vision"),
    "preprocessor": ("ControlNetPreprocessor",),
    "upscaler": ("ESRGAN", "RealESRGAN", "SwinIR", "DAT", "HAT", "ScuNET"),
    "face": ("GFPGAN", "Codeformer", "face"),
    "embedding": ("embeddings", "../embeddings"),
}
"""Kind of model by sub-folder of the models folder (AUTOMATIC1111 keeps ``embeddings`` beside it).

A VAE lies in its folder, or, with ``.vae.`` in its name, beside the checkpoints.
"""
_SPOKEN = {"lora": "LoRA", "vae": "VAE", "hypernet": "hypernetwork"}
STARTER = "starter"
"""File stem of the embedded model: the default only when no other checkpoint is there."""
AUTOMATIC = "Automatic"
"""The choice of a VAE that leaves it to the files; the other word that names no file is NONE."""
NONE = "None"
_HASH_DIGITS = 8
"""So many digits of a hash name a file."""


@dataclass(frozen=True)
class ModelEntry:
    """A model file.  ``name`` is its path below the kind's folder, without suffix; ``sha256`` None until computed.

    ``created_ns`` is when the file was made, or what the system knows instead; like ``mtime_ns`` since 1970.
    """

    kind: str
    name: str
    path: Path
    size: int
    mtime_ns: int
    sha256: str | None = None
    created_ns: int = 0

    @property
    def title(self) -> str:
        """The name with the short hash that AUTOMATIC1111 shows: ``name.safetensors [0123456789]``."""
        file_name = self.name + self.path.suffix
        return f"{file_name} [{self.sha256[:10]}]" if self.sha256 else file_name


@dataclass(frozen=True)
class FileKind:
    """A kind of model files beside :data:`FOLDERS`: its name, what people call one, its sub-folders."""

    name: str
    title: str
    folders: tuple[str, ...]


@dataclass
class Library:
    """The models folder.  ``refresh`` is cheap; ``sha256`` may read a whole file and remembers the answer.

    ``formats`` are the forms of files that are listed and read, ``added`` the kinds that plugins bring.
    """

    root: Path
    hashes: HashCache
    formats: Formats = BUILT_IN
    added: tuple[FileKind, ...] = ()
    _entries: dict[str, tuple[ModelEntry, ...]] = field(default_factory=dict)
    _looks: dict[str, int] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @cached_property
    def folders(self) -> Mapping[str, tuple[str, ...]]:
        """Every kind of model, with its sub-folders."""
        return {**FOLDERS, **{kind.name: kind.folders for kind in self.added}}

    def spoken(self, kind: str) -> str:
        """What people call a file of a kind."""
        return next((one.title for one in self.added if one.name == kind), _SPOKEN.get(kind, kind))

    @cached_property
    def facts(self) -> FactCache:
        """What the files say about themselves, remembered beside their hashes."""
        return FactCache(self.hashes.path.with_name("facts.sqlite3"), self.formats)

    def refresh(self, kind: str | None = None) -> None:
        """Look at the folder again, or only for the files of one kind."""
        known = self.hashes.known()
        with self._lock:
            scanned = bool(self._entries)
        found = {
            each: tuple(self._scan(each, known)) for each in self.folders if each == kind or not (kind and scanned)
        }
        with self._lock:
            self._entries = {**self._entries, **found}
            self._looks = {**self._looks, **{each: self._looks.get(each, 0) + 1 for each in found}}

    def entries(self, kind: str = "checkpoint") -> tuple[ModelEntry, ...]:
        """The files of a kind in name order, as of the last refresh."""
        with self._lock:
            scanned = bool(self._entries)
        if not scanned:
            self.refresh()
        with self._lock:
            return self._entries[kind]

    def looks(self, kind: str) -> int:
        """How often the folder was looked at for files of a kind: who keeps something of them sees that it is old."""
        with self._lock:
            return self._looks.get(kind, 0)

    def take_hashes(self) -> None:
        """Take up hashes that were computed meanwhile, without a look at the folder."""
        known = self.hashes.known()
        with self._lock:
            self._entries = {
                kind: tuple(entry if entry.sha256 else _with_hash(entry, known) for entry in entries)
                for kind, entries in self._entries.items()
            }

    def default_checkpoint(self) -> ModelEntry:
        """The first checkpoint that a person put there, else the embedded one.  Raises NotFoundError when empty."""
        entries = self.entries()
        if entries:
            return next((entry for entry in entries if entry.name != STARTER), entries[0])
        folder = self.root / FOLDERS["checkpoint"][0]
        raise NotFoundError(
            f"There is no model; put a checkpoint (.safetensors or .ckpt) into {folder} and press Refresh."
        )

    def find(self, wanted: str | None, kind: str = "checkpoint") -> ModelEntry:
        """The file that a person or a picture's text names: by name, file name, title, hash, or the end of a path.

        A LoRA also by the name that its trainer gave it, where no file is called so.  None means the default
        checkpoint.  Raises RequestError with the nearest name when nothing fits.
        """
        if wanted is None:
            return self.default_checkpoint()
        entries = self.entries(kind)
        bare, _, bracket = wanted.strip().partition(" [")
        keys = {wanted.strip().casefold(), bare.casefold()}
        short = bracket.rstrip("]").casefold() or bare.casefold()
        for entry in entries:
            if {entry.name.casefold(), (entry.name + entry.path.suffix).casefold()} & keys:
                return entry
        for entry in entries:
            if entry.sha256 and len(short) >= _HASH_DIGITS and entry.sha256.startswith(short):
                return entry
        for entry in entries:
            if {Path(entry.name).name.casefold(), entry.path.name.casefold()} & keys:
                return entry
        if kind == "lora" and (named := self.by_alias(wanted)) is not None:
            return named
        raise unknown_name(self.spoken(kind), wanted, (entry.name for entry in entries))

    def by_alias(self, alias: str, kind: str = "lora") -> ModelEntry | None:
        """The file whose trainer called it so (``ss_output_name``); of several the last, as AUTOMATIC1111 has it.

        Reads the headers of files that were not read yet.
        """
        entries, wanted = self.entries(kind), alias.strip().casefold()
        if not wanted:
            return None
        facts = self.facts.matching(entries, json.dumps(alias.strip(), ensure_ascii=False))
        named = {path for path, said in facts.items() if said.alias.casefold() == wanted}
        return next((entry for entry in reversed(entries) if str(entry.path) in named), None)

    def by_network_hash(self, short: str, kind: str = "lora") -> ModelEntry | None:
        """The file that AUTOMATIC1111 knows by this hash, or its first digits, as in a picture's "Lora hashes".

        Looks among the hashes that files state and those that were computed, and computes none.
        """
        entries, wanted = self.entries(kind), short.strip().casefold()
        if len(wanted) < _HASH_DIGITS:
            return None
        facts = self.facts.matching(entries, f'"network_hash": "{wanted}')
        for entry in entries:
            is_pickle = entry.path.suffix.lower() != ".safetensors"
            if str(entry.path) in facts or (is_pickle and entry.sha256 and entry.sha256.startswith(wanted)):
                return entry
        return None

    def lora_named(self, name: str, short_hash: str) -> str:
        """The name here of the LoRA that a picture's text calls ``name`` and gives this hash.

        As in AUTOMATIC1111 the hash decides; where no file is known by it, the name stays.
        """
        entry = self.by_network_hash(short_hash)
        if entry is None:
            return name
        with suppress(RequestError):
            if self.find(name, "lora") == entry:
                return name
        return entry.name

    def vae_for(self, checkpoint: ModelEntry, wanted: str = AUTOMATIC) -> ModelEntry | None:
        """The VAE file to use with a checkpoint instead of its own VAE; None means its own.

        "Automatic" asks, as AUTOMATIC1111 does (``modules/sd_vae.py``), first the person's notes on the checkpoint (the
        "vae" in the ``.json`` of its name), then takes the first VAE file whose name begins with the checkpoint's.
        Raises RequestError for a VAE that is named and not there.
        """
        if wanted.casefold() not in ("", "auto", AUTOMATIC.casefold()):
            return None if wanted == NONE else self.find(wanted, "vae")
        noted = read_notes(checkpoint.path).vae
        if noted == AUTOMATIC:
            noted = ""
        if noted == NONE:
            return None
        files = sorted(self.entries("vae"), key=lambda entry: natural_order(entry.path.name))
        named = [entry for entry in files if noted in (entry.path.name, entry.name)]
        near = (entry for entry in files if entry.path.name.startswith(checkpoint.path.stem))
        return next(chain(named, near), None)

    def knows_sha256(self, sha256: str, kind: str = "checkpoint") -> bool:
        """Whether a file whose SHA-256 begins so was hashed already."""
        return any(entry.sha256 and entry.sha256.startswith(sha256.casefold()) for entry in self.entries(kind))

    def by_sha256(
        self, sha256: str, kind: str = "checkpoint", *, likely: str = "", stopped: Callable[[], bool] = lambda: False
    ) -> ModelEntry | None:
        """The file with exactly these bytes, or whose SHA-256 begins so when ``sha256`` is shorter.

        Hashes files of a kind that were not hashed yet until it is found, first those called ``likely``, or until
        ``stopped`` between two of them.  Files that cannot be read are left out.
        """
        wanted, name = sha256.casefold(), Path(likely).name.casefold()
        entries = self.entries(kind)
        for entry in entries:
            if entry.sha256 and entry.sha256.startswith(wanted):
                return entry
        unknown = [entry for entry in entries if not entry.sha256]
        for entry in sorted(unknown, key=lambda entry: Path(entry.name).name.casefold() != name):
            if stopped():
                return None
            with suppress(NotFoundError):  # a file that cannot be read is not the one that is wanted
                if self.sha256(entry).startswith(wanted):
                    return entry
        return None

    def sha256(self, entry: ModelEntry) -> str:
        """The full SHA-256 of an entry's file."""
        try:
            return self.hashes.sha256(entry.path)
        except OSError as error:
            raise NotFoundError(f"The model file {entry.name} cannot be read: {error.strerror}.") from error

    def _scan(self, kind: str, known: dict[str, tuple[int, int, str]]) -> list[ModelEntry]:
        entries = []
        for folder in _once(self.root, self.folders[kind]):
            for found in _of_kind(kind, folder, _walk(str(self.root / folder), self._suffixes(kind))):
                size, mtime_ns = found.stat.st_size, found.stat.st_mtime_ns
                remembered = known.get(found.real)
                digest = remembered[2] if remembered and remembered[:2] == (size, mtime_ns) else None
                path = Path(found.path)
                entries.append(ModelEntry(kind, found.name, path, size, mtime_ns, digest, _created_ns(found.stat)))
        # Of two files with one name, the .safetensors comes first and is found by it, the other built-in forms next.
        places = {suffix: place for place, suffix in enumerate(self._suffixes(kind))}
        return sorted(entries, key=lambda entry: (entry.name.casefold(), places[entry.path.suffix.lower()]))

    def _suffixes(self, kind: str) -> tuple[str, ...]:
        """The endings of files of a kind; an embedding may be in a picture."""
        return (*self.formats.suffixes, *pictures.SUFFIXES) if kind == "embedding" else self.formats.suffixes


def _once(root: Path, folders: Sequence[str]) -> Iterator[str]:
    """The folders that are there, each once: some systems do not tell ``ControlNet`` from ``controlnet``."""
    seen = set()
    for folder in folders:
        with suppress(OSError):
            stat = (root / folder).stat()
            if (stat.st_dev, stat.st_ino) not in seen:
                seen.add((stat.st_dev, stat.st_ino))
                yield folder


def _with_hash(entry: ModelEntry, known: Mapping[str, tuple[int, int, str]]) -> ModelEntry:
    remembered = known.get(os.path.realpath(entry.path))
    fits = remembered is not None and remembered[:2] == (entry.size, entry.mtime_ns)
    return replace(entry, sha256=remembered[2]) if remembered is not None and fits else entry


def _created_ns(stat: os.stat_result) -> int:
    """When a file was made, in ns since 1970; on systems that do not tell, when it was last changed in any way."""
    return int(getattr(stat, "st_birthtime_ns", stat.st_ctime_ns))


def natural_order(name: str) -> list[tuple[int, str]]:
    """A key by which numbers in names are ordered as numbers."""
    return [(int(part[:18]), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name.lower())]


@dataclass(frozen=True)
class _Found:
    """A model file: its path as listed and with links followed, and its name below the folder, without suffix."""

    path: str
    real: str
    name: str
    stat: os.stat_result

    @property
    def is_vae(self) -> bool:
        """Whether it is a VAE by its name, as ``model.vae.pt`` is."""
        return f"{self.name}.".rpartition("/")[2].lower().endswith(".vae.")

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture by its name."""
        return self.path.lower().endswith(pictures.SUFFIXES)

    def is_free_of(self, names: Container[str]) -> bool:
        """Whether it shows none of the files of these names: not called like one, nor a preview."""
        return self.name not in names and not self.name.lower().endswith(".preview")


def _of_kind(kind: str, folder: str, files: Iterator[_Found]) -> Iterator[_Found]:
    """Which files of a folder are of a kind.

    One called ``model.vae.pt`` is a VAE wherever it lies.  A picture may be an embedding, unless it is called like one
    that is there, or a preview.
    """
    if kind == "embedding":
        found = list(files)
        named = {each.name for each in found if not each.is_picture}
        yield from (each for each in found if not each.is_picture or each.is_free_of(named))
    elif kind == "vae":
        yield from (each for each in files if each.is_vae or folder not in FOLDERS["checkpoint"])
    else:
        yield from (each for each in files if not each.is_vae)


def _walk(folder: str, suffixes: tuple[str, ...], below: str = "", above: tuple[str, ...] = ()) -> Iterator[_Found]:
    """Files below ``folder`` that end so, hidden ones left out; links are followed, but not in a circle.

    What is missing, or goes away meanwhile, is not listed.  Paths stay texts, and links are followed once a folder:
    for ten thousand files that is a second less than with a ``Path.resolve`` each.
    """
    try:
        real = os.path.realpath(folder)
        with os.scandir(folder) as listing:
            found = [entry for entry in listing if not entry.name.startswith(".")]
    except OSError:
        return
    if real in above:
        return
    for entry in found:
        try:
            if entry.is_dir():
                yield from _walk(entry.path, suffixes, f"{below}{entry.name}/", (*above, real))
            elif entry.name.lower().endswith(suffixes) and entry.is_file():
                target = os.path.realpath(entry.path) if entry.is_symlink() else f"{real}{os.sep}{entry.name}"
                yield _Found(entry.path, target, below + entry.name.rpartition(".")[0], entry.stat())
        except OSError:
            continue
