"""The Train tab's fields <-> :class:`TrainingRequest` as plain values: pure functions, without gradio.

A *field value* is what the browser holds: a text, or a bool for a checkbox.  Fields are named by the leaves of the
request ("optimiser.rate"), those of a kind's options with its name ("options.lora.rank").  Fields are made from the
records, so that a new leaf of the request and a kind of an extension are on the form by themselves.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any

from webui.errors import ExtensionError, RequestError
from webui.training.kinds import TrainingKind
from webui.training.request import OPTIMISERS, PREDICTIONS, RATE_SCHEDULES, TrainingRequest

Value = str | bool
KIND_ORDER = ("lora", "embedding", "checkpoint")
"""The kinds that most people want come first."""


class Holds(Enum):
    """What a field holds."""

    TEXT = "text"
    LINES = "lines"
    LIST = "list"
    WHOLE = "whole"
    NUMBER = "number"
    SWITCH = "switch"
    CHOICE = "choice"


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field.  ``empty`` says that nothing written means None; ``choices`` are those of ``Holds.CHOICE``."""

    name: str
    label: str
    holds: Holds
    default: Value
    help: str = ""
    choices: tuple[str, ...] = ()
    empty: bool = False


@dataclass(frozen=True)
class Section:
    """Fields under one heading; those without a title stand open at the top."""

    id: str
    title: str
    names: tuple[str, ...]


_WORDS: Mapping[str, tuple[str, str]] = {
    "name": ("Name", "of the file that comes out"),
    "checkpoint": ("Model", "what is taught, or taught for"),
    "data.folder": ("Dataset directory", "a folder on this machine, with a caption in a .txt beside each picture"),
    "data.prefix": ("Trigger word", "stands before every caption; the word that later calls what was learnt"),
    "data.caption": ("Caption for the others", "for pictures that have none of their own"),
    "steps": ("Max steps", ""),
    "batch_size": ("Batch size", "pictures a step"),
    "optimiser.rate": ("Learning rate", ""),
    "optimiser.name": ("Optimiser", ""),
    "optimiser.schedule": ("Learning rate schedule", ""),
    "data.size": ("Picture size", "side of a square of the same area, in pixels; empty: the model's own"),
    "data.buckets": ("Keep the proportions", "else pictures are cut square"),
    "data.flip": ("Flip", "show pictures mirrored as well"),
    "data.repeats": ("Repeats", "how often a picture comes up in an epoch, beside those of the class"),
    "data.control_folder": (
        "Control pictures",
        "folder of pictures with the same names, for ControlNet kinds",
    ),
    "data.class_folder": ("Class pictures", "folder of the same kind of thing in general, so that it is not forgotten"),
    "data.class_caption": ("Class caption", "for class pictures without one, such as: a dog"),
    "data.class_weight": ("Class weight", "how much their loss counts"),
    "samples.prompts": ("Sample prompts", "one a line; drawn on the way with what is learnt so far"),
    "samples.every": ("Sample every N steps", "0: never"),
    "samples.steps": ("Sampling steps", ""),
    "samples.cfg_scale": ("CFG Scale", ""),
    "samples.seed": ("Sample seed", ""),
    "noise.prediction": ("Prediction", "what the UNet says; Model: as it always did"),
    "noise.min_snr_gamma": ("Min-SNR gamma", "5 weights the timesteps after Hang et al.; 0: all equal"),
    "noise.offset": ("Noise offset", "0.05 to 0.1 teaches very dark and very bright pictures"),
    "noise.late_share": ("Share of late timesteps", "of a batch, from the noisier half alone"),
    "noise.last_share": ("Share of last timesteps", "of a batch, from the very last alone"),
    "noise.caption_dropout": ("Caption dropout", "share of captions left empty, for guidance"),
    "optimiser.text_rate": ("Text encoder's share", "of the learning rate"),
    "optimiser.other_rate": ("Other share", "of the learning rate, with Muon for all that is no matrix"),
    "optimiser.warmup": ("Warm-up steps", ""),
    "optimiser.final": ("Final share", "of the learning rate, at the end of the schedule"),
    "optimiser.weight_decay": ("Weight decay", ""),
    "optimiser.clip": ("Gradient clipping", "bound of the gradient's norm"),
    "optimiser.ema": ("Moving average", "decay of the averaged weights that are exported; 0: the weights themselves"),
    "seed": ("Seed", "the same seed and pictures give the same file"),
    "precision": ("Precision", "of the arithmetic; the weights are kept in fp32"),
    "parts": ("Parts", "threads that share a batch"),
    "save_every_s": ("Save every N seconds", "a training that is broken off goes on from there"),
    "export_every": ("Export every N steps", "a copy of the file as it is by then; 0: at the end alone"),
}
_CHOICES = {
    "optimiser.name": OPTIMISERS,
    "optimiser.schedule": RATE_SCHEDULES,
    "noise.prediction": PREDICTIONS,
    "precision": ("auto", "fp32", "bf16"),
}
TOP = Section(
    "top",
    "",
    ("name", "checkpoint", "data.folder", "data.prefix", "data.caption", "steps", "batch_size", "optimiser.rate",
     "optimiser.name", "optimiser.schedule", "precision", "samples.prompts", "samples.every"),
)  # fmt: skip
_SECTIONS = (
    ("data", "Pictures", ("data.size", "data.buckets", "data.flip", "data.repeats", "data.control_folder")),
    ("class", "DreamBooth: class pictures", ("data.class_folder", "data.class_caption", "data.class_weight")),
    ("noise", "Noise", ("noise.",)),
    ("optimiser", "Optimiser", ("optimiser.",)),
    ("samples", "Samples", ("samples.",)),
    ("run", "Run", ("",)),
)
"""Further sections: id, title and how names of theirs begin; each takes what those before it left."""


def ordered(kinds: Mapping[str, TrainingKind]) -> list[TrainingKind]:
    """The kinds in the order of the page."""
    place = {name: index for index, name in enumerate(KIND_ORDER)}
    return sorted(kinds.values(), key=lambda kind: (place.get(kind.name, len(place)), kind.label.casefold()))


@cache
def request_fields() -> Mapping[str, Field]:
    """A field for every leaf of a request but ``kind`` and ``options``, by name, as a request leaves them."""
    return {field.name: field for field in _leaves(TrainingRequest, "") if field.name not in ("kind", "options")}


def sections() -> list[Section]:
    """Every field of :func:`request_fields` once, in the order of the page."""
    found, left = [TOP], [name for name in request_fields() if name not in TOP.names]
    for id_, title, starts in _SECTIONS:
        names = tuple(name for start in starts for name in left if name.startswith(start))
        left = [name for name in left if name not in names]
        found.append(Section(id_, title, names))
    return found


def option_fields(kind: TrainingKind) -> list[Field]:
    """The fields of a kind's options, with the help of its docstring's lines ``field: text``.

    Raises ExtensionError when the record's types cannot be read.
    """
    try:
        return list(_leaves(kind.options, f"options.{kind.name}.", _help(kind.options)))
    except (NameError, TypeError, AttributeError) as error:
        raise ExtensionError(
            f'The options of "{kind.label}" cannot be shown ({type(error).__name__}: {error}); they stay as they are.'
        ) from error


def recommended(kind: TrainingKind) -> dict[str, Value]:
    """The values that choosing a kind sets, by field."""
    known = request_fields()
    return {name: text_of(value) for name, value in kind.defaults.items() if name in known}


def initial_values(kind: TrainingKind) -> dict[str, Value]:
    """What a fresh form holds for a kind, its options apart."""
    values = {field.name: field.default for field in request_fields().values()}
    return {"kind": kind.name, **values, **recommended(kind)}


def plain_from_values(values: Mapping[str, Any], kinds: Mapping[str, TrainingKind]) -> dict[str, Any]:
    """The request that the fields ask for, as plain values.  Fields left out take what a request leaves them.

    Raises RequestError with one sentence when a number is none or the kind is not here; what is out of range is for
    the request to say.
    """
    kind = chosen_kind(values, kinds)
    plain: dict[str, Any] = {"kind": kind.name, "options": {}}
    for field in request_fields().values():
        if field.name in values:
            part, _, leaf = field.name.rpartition(".")
            (plain.setdefault(part, {}) if part else plain)[leaf] = _read(field, values[field.name])
    for field in option_fields(kind):
        if field.name in values:
            plain["options"][field.name.rpartition(".")[2]] = _read(field, values[field.name])
    return plain


def values_from_plain(plain: Mapping[str, Any]) -> dict[str, Value]:
    """The field values that ask for a request (``TrainingRequest.to_dict()``)."""
    values: dict[str, Value] = {"kind": str(plain["kind"])}
    for name in request_fields():
        part, _, leaf = name.rpartition(".")
        table = plain.get(part, {}) if part else plain
        if leaf in table:
            values[name] = text_of(table[leaf])
    options = plain.get("options") or {}
    return values | {f"options.{plain['kind']}.{name}": text_of(value) for name, value in options.items()}


def chosen_kind(values: Mapping[str, Any], kinds: Mapping[str, TrainingKind]) -> TrainingKind:
    """The kind that the form names.  Raises RequestError."""
    name = str(values.get("kind") or "")
    if name not in kinds:
        raise RequestError("Choose what to teach first.")
    return kinds[name]


def text_of(value: Any) -> Value:
    """A plain value as a field holds it."""
    if isinstance(value, bool):
        return value
    if isinstance(value, list | tuple):
        return "\n".join(str(line) for line in value)
    return "" if value is None else str(value)


def _read(field: Field, value: Any) -> Any:
    if field.holds is Holds.SWITCH:
        return value is True
    text = value if isinstance(value, str) else str(text_of(value))
    if field.holds is Holds.LIST:
        return [line.strip() for line in text.split("\n") if line.strip()]
    if field.empty and not text.strip():
        return None
    if field.holds in (Holds.WHOLE, Holds.NUMBER):
        return _number(field, text.strip())
    return text


def _number(field: Field, text: str) -> int | float:
    if not text:
        raise RequestError(f"{field.label} is empty; type a number.")
    try:
        if field.holds is Holds.NUMBER:
            number = float(text)
            if math.isfinite(number):
                return number
        elif (whole := float(text)).is_integer():
            return int(text) if text.lstrip("+-").isascii() and text.lstrip("+-").isdigit() else int(whole)
    except (ValueError, OverflowError):
        pass
    wanted = "a whole number" if field.holds is Holds.WHOLE else "a number"
    raise RequestError(f'{field.label} is "{text[:40]}"; it must be {wanted}.')


def _leaves(record: type, prefix: str, said: Mapping[str, str] | None = None) -> Iterator[Field]:
    """The fields of a record and of the records in it; a leaf of a type that no field can hold is left out."""
    types = typing.get_type_hints(record)
    for entry in fields(record):
        name, kind = prefix + entry.name, types[entry.name]
        if is_dataclass(kind) and isinstance(kind, type):
            yield from _leaves(kind, f"{name}.", said)
            continue
        default = entry.default if entry.default is not MISSING else ""
        label, text = _WORDS.get(name, (_spoken(entry.name), (said or {}).get(entry.name, "")))
        holds, choices, empty = _holds(kind, _CHOICES.get(name, ()), f"{default}{text}")
        if holds is not None:
            yield Field(name=name, label=label, holds=holds, default=text_of(default), help=text,
                        choices=choices, empty=empty)  # fmt: skip


def _holds(kind: Any, choices: tuple[str, ...], words: str) -> tuple[Holds | None, tuple[str, ...], bool]:
    """What a field of a type holds (None: no field can), its choices, and whether it may be empty."""
    empty = False
    if typing.get_origin(kind) in (typing.Union, UnionType):
        inner = [one for one in typing.get_args(kind) if one is not NoneType]
        empty, kind = len(inner) < len(typing.get_args(kind)), inner[0]
    if choices:
        return Holds.CHOICE, choices, empty
    if typing.get_origin(kind) is typing.Literal and all(isinstance(one, str) for one in typing.get_args(kind)):
        return Holds.CHOICE, typing.get_args(kind), empty
    if typing.get_origin(kind) is tuple:
        return Holds.LIST, (), False
    held = {bool: Holds.SWITCH, int: Holds.WHOLE, float: Holds.NUMBER, str: Holds.TEXT}.get(kind)
    if held is Holds.TEXT and ("\n" in words or "one a line" in words or "lines" in words):
        held = Holds.LINES
    return held, (), empty


def _spoken(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _help(record: type) -> dict[str, str]:
    """The docstring's lines ``field: text``, by field; a line that goes on is indented further."""
    said: dict[str, str] = {}
    names, last = {entry.name for entry in fields(record)}, ""
    for line in (record.__doc__ or "").splitlines():
        word, colon, text = line.strip().partition(":")
        if colon and word in names:
            last = word
            said[word] = text.strip()
        elif last and line.strip() and line.startswith("     "):
            said[last] += f" {line.strip()}"
        else:
            last = ""
    return said
