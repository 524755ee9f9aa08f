"""Cards of the model files: what people see of them when they choose one, search for it, and note something about it.

Kept in memory, built from names and file dates alone; what stands in headers is added as it is read (by ``background``)
and remembered by ``checkpoints.facts``.  A page names a file by its card's id only, never by a path.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any

from PIL import Image

from webui.checkpoints.facts import ModelFacts, common_start
from webui.checkpoints.formats import Formats
from webui.checkpoints.library import Library, ModelEntry, natural_order
from webui.checkpoints.notes import Beside, Notes, Place, preview_target, read_notes, write_beside, write_notes
from webui.checkpoints.pictures import SUFFIXES as PICTURE_SUFFIXES
from webui.engine.outputs import write_atomically
from webui.errors import NotFoundError, PictureError, RequestError, WebUIError
from webui.images.pixels import flatten, open_picture

SHOWN = ("embedding", "hypernet", "checkpoint", "lora")
"""The kinds of files that the page has cards of, beside those of plugins."""
MAX_PAGE = 500
THUMBNAIL_PX = (320, 480)
"""Largest width and height of a thumbnail: that of a card on a screen with two dots a pixel."""
MAX_PREVIEW_BYTES = 64 * 1024 * 1024
_MAX_VALUE = 20_000
"""So many characters of one value of a file's metadata are shown."""
_QUALITY = 80
_NOTES = "notes"


@dataclass(frozen=True, kw_only=True)
class Card:
    """A model file as people see it.  ``said``, what its header says as JSON, is None until it was read.

    ``called`` is the name by which a prompt, or the list of checkpoints, finds the file.
    """

    id: str
    entry: ModelEntry
    called: str
    notes: Notes
    preview: Place | None
    said: str | None

    @cached_property
    def facts(self) -> ModelFacts | None:
        """What the header says; of ten thousand cards few are asked for it."""
        return None if self.said is None else ModelFacts.from_json(self.said)

    @property
    def is_picture(self) -> bool:
        """Whether the file is a picture, which an embedding may be in."""
        return self.entry.path.suffix.lower() in PICTURE_SUFFIXES

    @property
    def insert(self) -> str:
        """What is written into a prompt; an embedding inside a picture is spelled as the picture says."""
        return (self.is_picture and self.facts is not None and self.facts.alias) or self.called

    @property
    def stem(self) -> str:
        """The file's name without folder and suffix."""
        return self.entry.name.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The folder below that of the kind, "" for the kind's own."""
        return self.entry.name.rpartition("/")[0]

    @property
    def is_shown(self) -> bool:
        """Whether it is a model as far as is known: a picture is one only when an embedding is in it."""
        return not self.is_picture or (self.facts is not None and self.facts.is_model)

    @property
    def words(self) -> str:
        """All that a search looks through, in lower case."""
        facts, notes = self.facts or ModelFacts(), self.notes
        return "\n".join(
            (
                f"{self.entry.name}{self.entry.path.suffix}", facts.alias, facts.title, facts.base, facts.author,
                facts.trigger, facts.description, *(tag for tag, _ in facts.tags), notes.description, notes.sd_version,
                notes.activation_text, notes.notes, (self.entry.sha256 or "")[:10],
            )
        ).casefold()  # fmt: skip

    @property
    def thumbnail(self) -> str | None:
        """A text that changes with the preview, None without one."""
        return None if self.preview is None else _digest(*map(str, self.preview))

    def to_dict(self) -> dict[str, Any]:
        """What a page needs to draw the card and to insert it into a prompt."""
        facts = self.facts or ModelFacts()
        return {
            "id": self.id,
            "kind": self.entry.kind,
            "name": self.stem,
            "folder": self.folder,
            "file": self.entry.path.name,
            "insert": self.insert,
            "title": facts.title,
            "base": self.notes.sd_version or facts.base,
            "description": (self.notes.description or facts.description)[:300],
            "activation_text": self.notes.activation_text,
            "negative_text": self.notes.negative_text,
            "preferred_weight": self.notes.preferred_weight,
            "thumbnail": self.thumbnail,
            "problem": facts.problem,
            "read": self.said is not None,
        }


@dataclass(frozen=True, kw_only=True)
class CardQuery:
    """Which cards are wanted: those of a kind, in a folder and those below it, in which every word of ``search``
    occurs."""

    kind: str
    search: str = ""
    folder: str = ""
    sort: str = "path"
    descending: bool = False

    def __post_init__(self) -> None:
        if self.sort not in SORTS:
            raise RequestError(f'Cards are sorted by {", ".join(SORTS)}, not by "{self.sort[:80]}".')


@dataclass(frozen=True, kw_only=True)
class CardPage:
    """Some of the cards that were asked for: those from ``offset`` on, of ``total``.

    ``unread`` counts the files of the kind whose header was not read yet; ``place`` is where such files go.
    """

    cards: Sequence[Card]
    total: int
    unread: int
    place: Path

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the API."""
        cards = [card.to_dict() for card in self.cards]
        return {"total": self.total, "unread": self.unread, "place": str(self.place), "cards": cards}


_ORDERS: Mapping[str, Callable[[Card], Any]] = {
    "path": lambda card: natural_order(card.entry.name),
    "name": lambda card: natural_order(card.stem),
    "created": lambda card: card.entry.created_ns,
    "modified": lambda card: card.entry.mtime_ns,
}
SORTS = tuple(_ORDERS)


@dataclass
class _Shelf:
    """The cards of a kind by id, as of one look at the folder; their texts for searches; and their ids in order."""

    looks: int = 0
    cards: dict[str, Card] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    orders: dict[str, list[str]] = field(default_factory=dict)

    def ordered(self, sort: str) -> list[str]:
        """The ids in an order, which is found once: what is read of a file does not change it."""
        if sort not in self.orders:
            self.orders[sort] = sorted(self.cards, key=lambda card_id: _ORDERS[sort](self.cards[card_id]))
        return self.orders[sort]


class Cards:
    """The cards of all kinds.  ``state_dir`` keeps the thumbnails."""

    def __init__(self, library: Library, state_dir: Path) -> None:
        self.library = library
        self._thumbnails = state_dir / "thumbnails"
        self._shelves: dict[str, _Shelf] = {}
        self._lock = Lock()
        self._building = Lock()
        self._decoders = BoundedSemaphore(2)  # a picture may take some hundred MB while it is decoded

    @property
    def shown(self) -> tuple[str, ...]:
        """The kinds of files that the page has cards of."""
        return tuple(dict.fromkeys((*SHOWN, *(kind.name for kind in self.library.added))))

    # --- what is there ----------------------------------------------------------------------------------------

    def page(self, query: CardQuery, offset: int = 0, limit: int = 100) -> CardPage:
        """The cards that are asked for.  Reads names and dates of files, at most; headers come later."""
        shelf = self._shelf(query.kind)
        found = self._matching(shelf, query)
        unread = sum(card.said is None for card in shelf.cards.values())
        shown = found[offset : offset + min(limit, MAX_PAGE)]
        return CardPage(
            cards=shown, total=len(found), unread=unread, place=self.library.root / self.library.folders[query.kind][0]
        )

    def folders(self, kind: str) -> dict[str, int]:
        """How many cards are in each folder and those below it, by path, in name order."""
        counts: Counter[str] = Counter()
        for card in self._shelf(kind).cards.values():
            parts = card.folder.split("/") if card.folder and card.is_shown else []
            counts.update("/".join(parts[: depth + 1]) for depth in range(len(parts)))
        return dict(sorted(counts.items(), key=lambda item: [natural_order(part) for part in item[0].split("/")]))

    def card(self, card_id: str) -> Card:
        """A card by its id.  Raises NotFoundError."""
        for kind in (*self._shelves, *(kind for kind in self.library.folders if kind not in self._shelves)):
            found = self._shelf(kind).cards.get(card_id)
            if found is not None:
                return found
        raise NotFoundError("This model file is not there any more; press Refresh.")

    def detail(self, card_id: str) -> dict[str, Any]:
        """All that is known about a file: its card, notes, place, hash, most frequent tags and metadata."""
        card = self.card(card_id)
        entry = card.entry
        if card.said is None:
            [card] = self._learn([card])
        facts = card.facts or ModelFacts()
        metadata, problem = _metadata(entry.path, self.library.formats)
        entries = self.library.entries(entry.kind)
        return {
            **card.to_dict(),
            "path": str(entry.path),
            "size": entry.size,
            "modified": entry.mtime_ns / 1e9,
            "created": entry.created_ns / 1e9,
            "sha256": next((one.sha256 for one in entries if one.path == entry.path), None),
            "facts": {**asdict(facts), "problem": problem or facts.problem},
            "notes": asdict(card.notes),
            "metadata": metadata,
        }

    # --- what people change -----------------------------------------------------------------------------------

    def note(self, card_id: str, changes: Any) -> Card:
        """Change the notes on a file.  Raises NotFoundError, and RequestError for notes that cannot be."""
        card = self.card(card_id)
        if not isinstance(changes, Mapping):
            raise RequestError("The notes must be an object of texts.")
        notes = write_notes(card.entry.path, {str(name): value for name, value in changes.items()})
        return self._put(replace(card, notes=notes))

    def show_with(self, card_id: str, picture: Path) -> Card:
        """Make a picture file the preview of a model.  Raises NotFoundError, PictureError and RequestError."""
        card = self.card(card_id)
        data = _picture_bytes(picture)
        if picture.suffix.lower() != ".png":
            buffer = io.BytesIO()
            open_picture(data).save(buffer, "PNG")
            data = buffer.getvalue()
        path = card.entry.path
        write_beside(preview_target(path, card.entry.kind), data)
        return self._put(replace(card, preview=Beside.of(str(path.parent)).preview(path.stem, path.name)))

    # --- pictures ---------------------------------------------------------------------------------------------

    def thumbnail(self, card_id: str) -> tuple[bytes, str]:
        """A small WebP of a card's preview, and a tag that changes with it.  Made once and kept.

        Raises NotFoundError when there is none, PictureError for one that cannot be read.
        """
        card = self.card(card_id)
        if card.preview is None or card.thumbnail is None:
            raise NotFoundError("This model has no preview.")
        folder = self._thumbnails / card.id[:2]
        kept = folder / f"{card.id}.{card.thumbnail}.webp"
        try:
            return kept.read_bytes(), card.thumbnail
        except OSError:
            pass  # not made yet
        with self._decoders:
            small = _small(_picture_bytes(Path(card.preview[0])))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(f"{card.id}.*"):
                old.unlink(missing_ok=True)
            write_atomically(kept, small)
        except OSError:
            pass  # a full disk: made again next time
        return small, card.thumbnail

    # --- reading ----------------------------------------------------------------------------------------------

    def unread(self, kinds: Iterable[str] | None = None) -> list[Card]:
        """The cards whose file was not read yet, of some kinds or of those that were looked at."""
        wanted = list(self._shelves) if kinds is None else list(kinds)
        return [card for kind in wanted for card in self._shelf(kind).cards.values() if card.said is None]

    def read(self, cards: Sequence[Card]) -> None:
        """Read the headers of these cards' files and remember what they say."""
        self._learn(cards)

    def _learn(self, cards: Sequence[Card]) -> list[Card]:
        facts = self.library.facts.read([card.entry for card in cards])
        return [self._put(replace(card, said=facts[str(card.entry.path)].to_json())) for card in cards]

    def _put(self, card: Card) -> Card:
        with self._lock:
            shelf = self._shelves.get(card.entry.kind)
            if shelf is not None and card.id in shelf.cards:
                shelf.cards[card.id] = card
                shelf.words.pop(card.id, None)
        return card

    def _shelf(self, kind: str) -> _Shelf:
        """The cards of a kind, built anew when the folder was looked at since.  Raises RequestError for no kind."""
        if kind not in self.library.folders:
            known = ", ".join(self.library.folders)
            raise RequestError(f'There is no kind of model "{kind[:80]}"; there are {known}.')
        self.library.entries(kind)  # looks at the folder when nobody did yet
        with self._building:
            looks = self.library.looks(kind)
            shelf = self._shelves.get(kind)
            if shelf is None or shelf.looks != looks:
                shelf = _Shelf(looks, {card.id: card for card in self._built(kind)})
                with self._lock:
                    self._shelves[kind] = shelf
            return shelf

    def _built(self, kind: str) -> list[Card]:
        entries = self.library.entries(kind)
        said = self.library.facts.texts_of(entries)
        stems = Counter(entry.name.rpartition("/")[2].casefold() for entry in entries)
        besides: dict[str, Beside] = {}
        notes = _RememberedNotes(self.library, common_start(entries))
        cards = []
        for entry in entries:
            folder, file_name = os.path.split(entry.path)
            beside = besides.get(folder) or besides.setdefault(folder, Beside.of(folder))
            stem = file_name.rpartition(".")[0]
            card = Card(
                id=_digest(kind, str(entry.path)),
                entry=entry,
                called=stem if stems[stem.casefold()] == 1 and kind != "checkpoint" else entry.name,
                notes=notes.of(entry.path, beside.notes(stem)),
                preview=beside.preview(stem, file_name),
                said=said.get(str(entry.path)),
            )
            cards.append(card)
        notes.keep()
        return cards

    def _matching(self, shelf: _Shelf, query: CardQuery) -> list[Card]:
        wanted = query.search.casefold().split()
        below = f"{query.folder}/"
        with self._lock:
            ids = shelf.ordered(query.sort)
            in_order = (shelf.cards[card_id] for card_id in (reversed(ids) if query.descending else ids))
            cards = [card for card in in_order if card.is_shown]
        if query.folder:
            cards = [card for card in cards if card.folder == query.folder or card.folder.startswith(below)]
        if not wanted:
            return cards
        words = shelf.words
        texts = ((card, words.get(card.id) or words.setdefault(card.id, card.words)) for card in cards)
        return [card for card, text in texts if all(word in text for word in wanted)]


class _RememberedNotes:
    """The notes on many files, read only where the file of notes changed since."""

    def __init__(self, library: Library, start: str) -> None:
        self._facts = library.facts
        self._known = self._facts.texts(_NOTES, start)
        self._new: list[tuple[str, int, int, str]] = []

    def of(self, model: Path, place: Place | None) -> Notes:
        if place is None:
            return Notes()
        path, size, mtime_ns = place
        row = self._known.get(path)
        if row is not None and row[:2] == (size, mtime_ns):
            try:
                return Notes(**json.loads(row[2]))
            except (ValueError, TypeError):
                pass  # written by another version: read again
        notes = read_notes(model)
        self._new.append((path, size, mtime_ns, json.dumps(asdict(notes))))
        return notes

    def keep(self) -> None:
        if self._new:
            self._facts.store(_NOTES, self._new)


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _metadata(path: Path, formats: Formats) -> tuple[dict[str, Any], str]:
    """A file's metadata for reading, JSON in it taken apart and long texts cut; and a sentence when it has none."""
    try:
        metadata = formats.read_header(path).metadata
    except WebUIError as error:
        return {}, str(error)
    return {str(name)[:200]: _readable(value) for name, value in metadata.items()}, ""


def _readable(value: str) -> Any:
    if len(value) > _MAX_VALUE:
        return f"{value[:_MAX_VALUE]} … ({len(value) - _MAX_VALUE} more characters)"
    if value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _picture_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PREVIEW_BYTES + 1)
    except OSError as error:
        raise NotFoundError(f"The picture {path.name} cannot be read: {error.strerror}.") from error
    if len(data) > MAX_PREVIEW_BYTES:
        raise PictureError(f"The picture {path.name} is larger than {MAX_PREVIEW_BYTES // 1024**2} MB.")
    return data


def _small(data: bytes) -> bytes:
    """A picture within THUMBNAIL_PX as WebP.  Raises PictureError."""
    picture = flatten(open_picture(data))
    picture.thumbnail(THUMBNAIL_PX, Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()
