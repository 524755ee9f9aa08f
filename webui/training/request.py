"""What is to be taught: one frozen record, the same from page, API and command line.  Standard library only.

If it can change a bit of the trained weights, it is a field here, and so it is in the file that comes out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, get_args, get_origin, get_type_hints

from webui.errors import RequestError, unknown_name

OPTIMISERS = ("AdamW", "Muon")
RATE_SCHEDULES = ("Constant", "Cosine", "Linear")
PREDICTIONS = ("Model", "Epsilon", "V")
_NAME = re.compile(r"[^\x00-\x1f/\\:*?\"<>|.][^\x00-\x1f/\\:*?\"<>|]*")


def in_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse a value that is no number from ``low`` to ``high``.  Raises RequestError."""
    if not (isinstance(value, int | float) and math.isfinite(value) and low <= value <= high):
        raise RequestError(f"{name} is {value!r}; it must be a number from {low:g} to {high:g}.")


def check_types(record: Any) -> None:
    """Refuse a field of a record whose value is not of its declared type: "false" is no way to say no.

    A whole number does as a float.  Only plain types are checked, and texts in a tuple.  Raises RequestError.
    """
    for name, declared in get_type_hints(type(record)).items():
        value, allowed = getattr(record, name), get_args(declared) or (declared,)
        if get_origin(declared) is tuple:
            fits, allowed = isinstance(value, tuple) and all(isinstance(item, str) for item in value), (tuple,)
        elif not all(kind in _WORDS for kind in allowed):
            continue
        else:
            fits = type(value) in allowed or (type(value) is int and float in allowed)
        if not fits:
            words = " or ".join(_WORDS[kind] for kind in allowed)
            shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:79]}…"
            raise RequestError(f"{name.replace('_', ' ').capitalize()} is {shown}; it must be {words}.")


_WORDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list of texts",
    type(None): "left out",
}


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise unknown_name(name, str(value), known)


@dataclass(frozen=True, kw_only=True)
class Data:
    """The pictures.

    ``folder`` holds pictures with captions (a ``.txt`` beside each, or a ``metadata.jsonl``).  ``size`` is the side in
    pixels of a square of the same area as the training pictures; None means the model's own.  With ``buckets`` pictures
    keep about their aspect ratio, else they are cut square.  ``flip`` also shows them mirrored.  ``caption`` stands for
    pictures without one, and ``prefix`` before every caption.  ``repeats`` counts how often a picture comes up in an
    epoch beside those of ``class_folder``: pictures of the same kind of thing in general, whose loss counts
    ``class_weight`` (prior preservation, Ruiz et al. 2022, arXiv:2208.12242), with ``class_caption``.
    ``control_folder`` holds control pictures of the same names.
    """

    folder: str
    size: int | None = None
    buckets: bool = True
    flip: bool = False
    caption: str = ""
    prefix: str = ""
    repeats: int = 1
    class_folder: str = ""
    class_caption: str = ""
    class_weight: float = 1.0
    control_folder: str = ""

    def __post_init__(self) -> None:
        check_types(self)
        if not isinstance(self.folder, str) or not self.folder.strip():
            raise RequestError("No folder of training pictures was named.")
        if self.size is not None:
            in_range("The training size", self.size, 64, 2048)
            if self.size % 64:
                raise RequestError(f"The training size is {self.size}; it must be a multiple of 64.")
        in_range("Repeats", self.repeats, 1, 10_000)
        in_range("The class weight", self.class_weight, 0.0, 100.0)


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """How gradients become steps.

    ``rate`` is reached after ``warmup`` steps and then follows ``schedule`` down to ``final`` of it.  ``text_rate`` and
    ``other_rate`` multiply it for the text encoder, and (Muon) for all that is no matrix.  ``clip`` bounds the norm of
    the gradient.  ``ema`` is the decay of the moving average that is exported; 0 exports the weights themselves.
    """

    name: str = "AdamW"
    rate: float = 1e-4
    text_rate: float = 1.0
    other_rate: float = 0.1
    schedule: str = "Cosine"
    warmup: int = 20
    final: float = 0.02
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        _one_of("optimiser", self.name, OPTIMISERS)
        _one_of("learning-rate schedule", self.schedule, RATE_SCHEDULES)
        in_range("The learning rate", self.rate, 0.0, 10.0)
        in_range("The text encoder's share of the learning rate", self.text_rate, 0.0, 100.0)
        in_range("The other share of the learning rate", self.other_rate, 0.0, 100.0)
        in_range("Warm-up steps", self.warmup, 0, 1_000_000)
        in_range("The final share of the learning rate", self.final, 0.0, 1.0)
        in_range("Weight decay", self.weight_decay, 0.0, 10.0)
        in_range("The gradient's bound", self.clip, 0.0, 1e9)
        in_range("The moving average's decay", self.ema, 0.0, 0.99999)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What the UNet is asked.

    ``prediction`` "Model" keeps what the base model predicts.  ``min_snr_gamma`` weights the timesteps (Hang et al.
    2023, arXiv:2303.09556), 0 leaves them equal.  ``offset`` adds noise that is the same over a whole channel.
    ``late_share`` of the batch is drawn from the noisier half of the timesteps alone and ``last_share`` from the very
    last; the rest from all of them.  ``caption_dropout`` of the captions are empty: the other side of guidance.
    ``short_captions`` reads captions only as far as they go in seven batches of eight: quicker, for a model that is
    taught so from nothing.
    """

    prediction: str = "Model"
    min_snr_gamma: float = 0.0
    offset: float = 0.0
    late_share: float = 0.0
    last_share: float = 0.0
    caption_dropout: float = 0.1
    short_captions: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        _one_of("prediction", self.prediction, PREDICTIONS)
        in_range("Min-SNR gamma", self.min_snr_gamma, 0.0, 100.0)
        in_range("Noise offset", self.offset, 0.0, 1.0)
        in_range("The share of late timesteps", self.late_share, 0.0, 1.0)
        in_range("The share of last timesteps", self.last_share, 0.0, 1.0)
        in_range("Caption dropout", self.caption_dropout, 0.0, 1.0)
        if self.late_share + self.last_share > 1.0:
            raise RequestError("The shares of late and last timesteps are more than the whole batch together.")


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Pictures drawn on the way with the weights so far: one per prompt, every ``every`` steps (0: none)."""

    prompts: tuple[str, ...] = ()
    every: int = 200
    steps: int = 20
    cfg_scale: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        in_range("The steps between samples", self.every, 0, 1_000_000_000)
        in_range("Sampling steps", self.steps, 1, 150)
        in_range("CFG scale", self.cfg_scale, 1.0, 30.0)
        if len(self.prompts) > 64:
            raise RequestError(f"{len(self.prompts)} sample prompts were given; at most 64 are drawn.")


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """A run.

    ``kind`` names a registered kind ("lora"), ``options`` are the fields of its options record.  ``name`` is that of
    the file that comes out, ``checkpoint`` the model that is taught or taught for (None: the default one).  ``parts``
    is how many threads share a batch, each computing its part alone; it is recorded because the order of summation
    moves the last bit.  ``precision`` is that of the networks' arithmetic; the trained weights themselves are kept in
    fp32.  A checkpoint of the run is written every ``save_every_s`` seconds and at the end, and the file as it would be
    by then every ``export_every`` steps (0: at the end alone), with the step behind its name.
    """

    kind: str
    name: str
    data: Data
    steps: int = 1000
    batch_size: int = 4
    checkpoint: str | None = None
    seed: int = 0
    optimiser: Optimiser = field(default_factory=Optimiser)
    noise: Noise = field(default_factory=Noise)
    samples: Samples = field(default_factory=Samples)
    options: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "auto"
    parts: int = 1
    save_every_s: float = 300.0
    export_every: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or len(self.name) > 120:
            raise RequestError(f'The name "{self.name}" cannot be a file name; use letters, digits, - and _.')
        if not isinstance(self.options, Mapping):
            raise RequestError("The options of a training must be a table of names and values.")
        in_range("Steps", self.steps, 1, 100_000_000)
        in_range("The batch size", self.batch_size, 1, 4096)
        in_range("The seed", self.seed, 0, 2**63 - 1)
        in_range("Parts", self.parts, 1, 64)
        in_range("The steps between exported files", self.export_every, 0, 1_000_000_000)
        in_range("Seconds between checkpoints", self.save_every_s, 1.0, 1e9)
        _one_of("precision", self.precision, ("auto", "fp32", "bf16"))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        data = asdict(self)
        data["options"] = dict(self.options)
        data["samples"]["prompts"] = list(self.samples.prompts)
        return data

    @classmethod
    def from_dict(cls, plain: Any) -> Self:
        """The inverse of :meth:`to_dict`; what is left out takes its default.  Raises RequestError."""
        values = _known(cls, plain, "a training request")
        for name, part in (("data", Data), ("optimiser", Optimiser), ("noise", Noise), ("samples", Samples)):
            if name in values:
                values[name] = _part(part, values[name], name)
        try:
            return cls(**values)
        except TypeError as error:
            raise RequestError(f"The training request is incomplete: {error}.") from None


def _part(record: type[Any], plain: Any, name: str) -> Any:
    values = _known(record, plain, f'"{name}" of a training request')
    if isinstance(values.get("prompts"), list):
        values["prompts"] = tuple(values["prompts"])
    try:
        return record(**values)
    except TypeError as error:
        raise RequestError(f'"{name}" of the training request is incomplete: {error}.') from None


def _known(record: type[Any], plain: Any, what: str) -> dict[str, Any]:
    """The values as a dict, once every name is a field of the record.  Raises RequestError."""
    if not isinstance(plain, Mapping):
        raise RequestError(f"{what} must be a table of names and values, not {type(plain).__name__}.")
    names = [entry.name for entry in fields(record)]
    for name in plain:
        if name not in names:
            raise unknown_name(f"field of {what}", str(name), names)
    return dict(plain)


def folder(path: str) -> Path:
    """A folder that a person named, with ``~`` meaning their home."""
    return Path(path).expanduser()
