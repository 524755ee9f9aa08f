"""Kinds of networks that a prompt's tags name: ``<hypernet:name:0.8>``, or a word that an extension adds.

A kind says what its tags' arguments mean (an options record), where its files lie, and what of the UNet they fill; like
a conditioning module it never touches the model.  LoRAs are no such kind: they are merged into copies of the weights
before the prompt is encoded (``lora``), so that their words are taken and their tags read by ``prompt.extra_networks``.
Called by the engine, which holds the registered kinds as :class:`NetworkKinds`.  No torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, get_origin, get_type_hints

from webui.checkpoints.library import FOLDERS, FileKind
from webui.errors import RequestError, unknown_name
from webui.option_boxes import Box, Kind, all_boxes, checked, problem
from webui.prompt.extra_networks import LORA_WORDS, NetworkTag

if TYPE_CHECKING:
    from webui.conditioning import Contribution, Pictures
    from webui.model import Model
    from webui.request import GenerationRequest

HOOK = "register_extra_network_kinds"
LORA_USAGE = "<lora:name:weight>"
ROLES = frozenset({*FOLDERS, "refiner", "hires checkpoint"} - {*LORA_WORDS})
"""What recipes call the program's own files beside LoRAs; no kind of an extension may be called so."""
MAX_TITLE = 60
_SHOWN = 100
_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

Ask = Callable[[str, str, Callable[[], Any]], Any]
"""What code of the kind of a name answers; the second text says what is done.  Raises a WebUIError when it fails."""


@dataclass(frozen=True, kw_only=True)
class NetworkUse:
    """One tag: what the prompt calls the network, the options record, and its file, None for a kind without files."""

    name: str
    options: Any
    path: Path | None = None
    sha256: str = ""


class ExtraNetworkKind(Protocol):
    """A kind of networks as it is registered.

    ``name`` is the tag's word, made of letters, digits and _, and what recipes call its files; ``title`` is what people
    read of one ("hypernetwork").  ``folders`` are those below the models folder where its files lie; without any, the
    name in a tag is plain.  ``options`` is its frozen options record (a dataclass): of flags, numbers, texts and closed
    choices of texts.  The arguments of a tag fill it by place, in its order, or as ``field=value``; what does not fit
    is refused when the request is made.  What else a kind may have, all of it optional:

    - ``aliases``: more words for the same.
    - ``names``: without files, the only names that there are.
    - ``read(arguments) -> (name, options) | None``: what a tag means, with the options by field name, where that is
      read in another way; None for a tag that means nothing, which is then told like one of an unknown word.
    """

    name: str
    title: str
    folders: Sequence[str]
    options: type

    def prepare(
        self, uses: Sequence[NetworkUse], model: Model, request: GenerationRequest, pictures: Pictures
    ) -> Contribution:
        """The contribution of all tags of this kind in a prompt, in their order, to one model's calls.

        Pure: the model is bit-identical before and after.  ``pictures`` is what modules get, without a ``scratch``.
        Files are read with ``pictures.formats``.  What of them did not fit is told in the contribution's ``problems``.
        Raises CheckpointError for a file that cannot be used.
        """
        ...


@dataclass(frozen=True)
class NetworkKind:
    """A registered kind, as it was when it was registered.  ``part`` is what was registered."""

    name: str
    title: str
    aliases: tuple[str, ...]
    folders: tuple[str, ...]
    names: tuple[str, ...] | None
    options: type
    part: ExtraNetworkKind

    @classmethod
    def of(cls, part: Any) -> NetworkKind:
        """The kind of what was registered.  Raises ValueError, with what is wrong with it."""
        aliases, folders = _texts(part, "aliases"), _texts(part, "folders")
        names = _texts(part, "names") if getattr(part, "names", None) is not None else None
        for word in (part.name, *aliases):
            if not re.fullmatch(r"\w+", word):
                raise ValueError(f'its word "{word}" is not made of letters, digits and _')
        if type(part.title) is not str or not 0 < len(part.title) <= MAX_TITLE or not part.title.isprintable():
            raise ValueError(f"its title is no text of 1 to {MAX_TITLE} letters")
        for folder in folders:
            _check_folder(folder)
        if folders and names is not None:
            raise ValueError("it has both folders and names")
        if wrong := _wrong_options(part.options):
            raise ValueError(wrong)
        lacking = [name for name in ("prepare", "read") if hasattr(part, name) and not callable(getattr(part, name))]
        if lacking:
            raise ValueError(f"its {lacking[0]} cannot be called")
        return cls(part.name, part.title, aliases, folders, names, part.options, part)

    @property
    def words(self) -> tuple[str, ...]:
        """All words of its tags, the name first."""
        return (self.name, *self.aliases)

    @property
    def files(self) -> FileKind | None:
        """Its files for the library; None for a kind without files."""
        return FileKind(self.name, self.title, self.folders) if self.folders else None

    @property
    def usage(self) -> str:
        """Its tag with the names of all arguments."""
        return f"<{':'.join((self.name, 'name', *(box.name for box in all_boxes(self.options))))}>"

    @property
    def strength(self) -> str:
        """The usual value of the first argument, where that is a number: what a card writes behind the name."""
        first = next(iter(all_boxes(self.options)), None)
        is_number = first is not None and type(first.default) in (int, float)
        return f"{first.default:g}" if first is not None and is_number else ""

    def meant(self, tag: NetworkTag, ask: Ask) -> tuple[str, Any] | None:
        """The name and the options record of a tag, None when it means nothing.  Raises RequestError."""
        if hasattr(self.part, "read"):
            told = ask(self.name, f"read of {self.name}", partial(_told, self.part, tag.arguments))
        else:
            told = _by_the_record(tag, self.options)
        if told is None:
            return None
        name, options = told
        if self.names is not None and name not in self.names:
            raise unknown_name(self.title, name, self.names)
        record = partial(checked, self.options, options, _said(tag))
        has_own_checks = hasattr(self.options, "__post_init__")
        return name, ask(self.name, f"options of {self.name}", record) if has_own_checks else record()


@dataclass(frozen=True, kw_only=True)
class Meant:
    """A tag of a known kind, read."""

    kind: NetworkKind
    tag: NetworkTag
    name: str
    options: Any


def _plainly(name: str, doing: str, function: Callable[[], Any]) -> Any:
    return function()


@dataclass(frozen=True)
class NetworkKinds:
    """The registered kinds by name.  ``ask`` runs their code, for the kind of a name."""

    kinds: Mapping[str, NetworkKind] = field(default_factory=dict)
    ask: Ask = _plainly

    @property
    def file_kinds(self) -> tuple[FileKind, ...]:
        """The kinds that have files, for the library."""
        return tuple(files for kind in self.kinds.values() if (files := kind.files) is not None)

    @property
    def usage(self) -> str:
        """Every tag that is known, in words."""
        *first, last = (LORA_USAGE, *(kind.usage for kind in self.kinds.values()))
        return f"{', '.join(first)} and {last}" if first else last

    def of_word(self, word: str) -> NetworkKind | None:
        """The kind whose tags have this word."""
        return next((kind for kind in self.kinds.values() if word in kind.words), None)

    def read(self, tags: Sequence[NetworkTag]) -> Iterator[Meant | NetworkTag]:
        """What tags mean, in their order; one that means nothing as it is.  Raises RequestError for wrong arguments."""
        for tag in tags:
            kind = self.of_word(tag.word)
            told = None if kind is None else kind.meant(tag, self.ask)
            if kind is None or told is None:
                yield tag
            else:
                yield Meant(kind=kind, tag=tag, name=told[0], options=told[1])


def _told(part: Any, arguments: Sequence[str]) -> tuple[str, Mapping[str, Any]] | None:
    """What a kind's own reading answers.  Raises TypeError when that is no answer."""
    told = part.read(arguments)
    if told is None:
        return None
    if not (isinstance(told, tuple) and len(told) == 2 and type(told[0]) is str and isinstance(told[1], Mapping)):
        raise TypeError(f"it answered a {type(told).__name__}, expected a name and options, or None")
    return told[0], dict(told[1])


def _by_the_record(tag: NetworkTag, options: type) -> tuple[str, dict[str, Any]]:
    """The name and the options, by place and by name, that a tag's arguments are for a record.  Raises RequestError."""
    boxes, kinds = all_boxes(options), get_type_hints(options)
    name, *places = [item.strip() for item in tag.by_place] or [""]
    if not name:
        raise RequestError(f"{_said(tag)} names nothing; write the name behind the first colon.")
    if len(places) > len(boxes):
        known = ", ".join(box.name for box in boxes) or "none"
        raise RequestError(f"{_said(tag)} has {len(places)} arguments behind its name; there are {known}.")
    told = {box.name: text for box, text in zip(boxes, places, strict=False)}
    for key, value in ((key.strip(), value.strip()) for key, value in tag.named):
        if key in told:
            raise RequestError(f"{_said(tag)} says {key} twice; take one of them out.")
        told[key] = value
    return name, {key: _value(kinds.get(key), text) for key, text in told.items()}


def _value(kind: Any, text: str) -> Any:
    """The value that a text stands for; one that stands for none as it is, for ``checked`` to refuse."""
    if kind is bool:
        return _FLAGS.get(text.casefold(), text)
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError:
        return text


def _said(tag: NetworkTag) -> str:
    """The tag as it is told, cut where it is long."""
    return tag.text if len(tag.text) <= _SHOWN else f"{tag.text[: _SHOWN - 2]}…>"


def _wrong_options(options: Any) -> str | None:
    """What is wrong with an options record as it is declared, None when nothing is."""
    if told := problem(options, tuple(FOLDERS)):
        return told
    kinds = get_type_hints(options)
    for box in all_boxes(options):
        if box.kind is not Kind.PLAIN or not _is_plain(box, kinds[box.name]):
            return f"its option {box.name} is no flag, number, text or closed choice of texts, as a tag holds"
    return None


def _is_plain(box: Box, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return all(isinstance(one, str) for one in get_args(kind))
    return kind in (bool, int, float, str) or (isinstance(kind, type) and issubclass(kind, StrEnum))


def _texts(part: Any, name: str) -> tuple[str, ...]:
    """A collection of texts that a part has, empty where it has none.  Raises ValueError."""
    given = getattr(part, name, ())
    if not isinstance(given, Collection) or isinstance(given, str) or not all(type(one) is str for one in given):
        raise ValueError(f"its {name} are no texts in a list")
    return tuple(given)


def _check_folder(folder: str) -> None:
    """Refuse what is no folder below the models folder, on any system.  Raises ValueError."""
    path = PureWindowsPath(folder)  # knows the drives and both slashes
    if not path.parts or path.anchor or ".." in path.parts or not folder.isprintable():
        raise ValueError(f'its folder "{folder}" does not lie below the models folder')
