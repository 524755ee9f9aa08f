"""What was asked: one frozen record that the page, the API and the command line all build, checked when it is built.

If something can change a pixel, it is a field here, and so it is in the picture's metadata.  Settings (folders, device,
precision) are not.  Standard library only: the server process imports this without torch.
"""

from __future__ import annotations

import dataclasses
import math
import random
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any, Self

from webui.errors import RequestError

MAX_SEED = 2**53 - 1
"""Largest seed: the largest whole number that JSON, JavaScript and a number box keep exactly."""
MAX_SIDE = 4096
MAX_PROMPT = 100_000
MAX_DEPTH = 16
"""How deeply a conditioning module's options may be nested."""
RANDOM_SEED_RANGE = 4_294_967_294
"""Random seeds are drawn below this, as AUTOMATIC1111 does (modules/processing.py, get_fixed_seed)."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class ResizeMode(StrEnum):
    """How a start image is brought to the size asked for; the words AUTOMATIC1111 uses."""

    JUST_RESIZE = "Just resize"
    CROP = "Crop and resize"
    FILL = "Resize and fill"
    LATENT = "Just resize (latent upscale)"


class RandomSource(StrEnum):
    """What draws the noise: torch on the CPU, torch on the device that computes, or an NVIDIA GPU's numbers on any."""

    CPU = "CPU"
    GPU = "GPU"
    NV = "NV"


class MaskMode(StrEnum):
    """Which side of the mask is painted anew."""

    MASKED = "Inpaint masked"
    NOT_MASKED = "Inpaint not masked"


class MaskedContent(StrEnum):
    """What stands under the mask before sampling starts."""

    FILL = "fill"
    ORIGINAL = "original"
    LATENT_NOISE = "latent noise"
    LATENT_NOTHING = "latent nothing"


class InpaintArea(StrEnum):
    """Whether the whole picture or only the masked part, enlarged, goes through the network."""

    WHOLE = "Whole picture"
    ONLY_MASKED = "Only masked"


class Emphasis(StrEnum):
    """What the weights of a prompt's words do to its context; the words AUTOMATIC1111 uses.

    Original keeps the context's mean, No norm does not; Ignore reads the brackets and leaves the context alone, None
    reads them as text.
    """

    ORIGINAL = "Original"
    NO_NORM = "No norm"
    IGNORE = "Ignore"
    NONE = "None"


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"{name} is {_shown(value)}; it must be a number from {low:g} to {high:g}.")
    if not low <= value <= high:  # also when it is not a number (NaN)
        raise RequestError(f"{name} is {_shown(value)}; it must be from {low:g} to {high:g}.")


def _check_whole(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} is {_shown(value)}; it must be a whole number from {low} to {high}.")
    if not low <= value <= high:
        raise RequestError(f"{name} is {_shown(value)}; it must be from {low} to {high}.")


def _check_choice(name: str, value: StrEnum, kind: type[StrEnum]) -> None:
    if not isinstance(value, kind):
        allowed = ", ".join(f'"{member.value}"' for member in kind)
        raise RequestError(f"{name} is {_shown(value)}; it must be one of {allowed}.")


def _check_plain(name: str, value: Any, depth: int = MAX_DEPTH) -> None:
    """Refuse what JSON cannot keep, and nesting that no program needs."""
    if depth == 0:
        raise RequestError(f"{name} is nested more than {MAX_DEPTH} levels deep.")
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        for key, item in value.items():
            _check_text(name, key)
            _check_plain(name, item, depth - 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_plain(name, item, depth - 1)
    elif isinstance(value, str):
        _check_text(name, value)
    elif not (value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))):
        raise RequestError(f"{name} holds {_shown(value)}, which is no plain JSON value.")


def _shown(value: Any) -> str:
    """A value that was refused, short enough for a sentence."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    text = repr(value) if not isinstance(value, float | int) else f"{value:.10g}"
    return text if len(text) <= 80 else f"{text[:79]}…"


def _check_text(name: str, value: str) -> None:
    if not isinstance(value, str):
        raise RequestError(f"{name} is {_shown(value)}; it must be text.")
    if len(value) > MAX_PROMPT:
        raise RequestError(f"{name} has {len(value)} characters; at most {MAX_PROMPT} are accepted.")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise RequestError(f"{name} holds characters that cannot be stored as text (NUL or half of a pair).")


@dataclass(frozen=True, kw_only=True)
class Size:
    """Width and height of the picture in pixels, multiples of 8 from 64 to 4096."""

    width: int = 512
    height: int = 512

    def __post_init__(self) -> None:
        for name, value in (("Width", self.width), ("Height", self.height)):
            _check_whole(name, value, 64, MAX_SIDE)
            if value % 8:
                raise RequestError(f"{name} is {value}; it must be a multiple of 8, for example {value // 8 * 8}.")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampler and schedule by the names users see; ``eta`` None means the sampler's own default."""

    sampler: str = "DPM++ 2M"
    schedule: str = "Automatic"
    steps: int = 20
    cfg_scale: float = 7.0
    eta: float | None = None

    def __post_init__(self) -> None:
        _check_text("Sampler", self.sampler)
        _check_text("Schedule type", self.schedule)
        _check_whole("Steps", self.steps, 1, 1000)
        _check_range("CFG scale", self.cfg_scale, 0, 100)
        if self.eta is not None:
            _check_range("Eta", self.eta, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Mask:
    """An inpainting mask.  ``image`` is the SHA-256 of a stored picture whose light pixels are painted anew.

    ``blur`` is the standard deviation of the mask's Gaussian blur in pixels; ``padding`` counts pixels around the
    masked box when ``area`` is only the masked part.
    """

    image: str
    blur: int = 4
    mode: MaskMode = MaskMode.MASKED
    content: MaskedContent = MaskedContent.ORIGINAL
    area: InpaintArea = InpaintArea.WHOLE
    padding: int = 32

    def __post_init__(self) -> None:
        _check_digest("The mask", self.image)
        _check_whole("Mask blur", self.blur, 0, 64)
        _check_whole("Only masked padding", self.padding, 0, 256)
        _check_choice("Mask mode", self.mode, MaskMode)
        _check_choice("Masked content", self.content, MaskedContent)
        _check_choice("Inpaint area", self.area, InpaintArea)


@dataclass(frozen=True, kw_only=True)
class StartImage:
    """The picture that img2img starts from; with a mask it is inpainting.

    ``image`` is the SHA-256 of the stored file's bytes; ``denoising_strength`` 0 keeps the picture, 1 replaces it.
    """

    image: str
    denoising_strength: float = 0.75
    resize_mode: ResizeMode = ResizeMode.JUST_RESIZE
    mask: Mask | None = None

    def __post_init__(self) -> None:
        _check_digest("The start image", self.image)
        _check_range("Denoising strength", self.denoising_strength, 0, 1)
        _check_choice("Resize mode", self.resize_mode, ResizeMode)


def _check_digest(name: str, value: str) -> None:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise RequestError(f"{name} must be named by the SHA-256 of a stored picture (64 hexadecimal digits).")


@dataclass(frozen=True, kw_only=True)
class ModuleUse:
    """One use of a conditioning module: its registered name and its own options by field name (plain JSON values)."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_text("The conditioning module", self.name)
        if not isinstance(self.options, Mapping):
            raise RequestError(f"The options of {self.name} are {_shown(self.options)}; they must be named values.")
        _check_plain(f"The options of {self.name}", self.options)


@dataclass(frozen=True, kw_only=True)
class Template:
    """The prompts as they were written, with choices (``{a|b}``, ``__name__``) that a seed has made since."""

    prompt: str = ""
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        _check_text("The prompt's template", self.prompt)
        _check_text("The negative prompt's template", self.negative_prompt)


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """Everything a person can ask for.  ``seed`` None and ``checkpoint`` None are answered once, by :meth:`resolved`.

    Image ``i`` of ``batch_size * batch_count`` uses seed ``seed + i``.  ``clip_skip`` n takes the n-th last hidden
    state of the text encoder (1: the last).  With a ``template`` the prompts are what became of it, and no more choices
    are made in them.
    """

    prompt: str = ""
    negative_prompt: str = ""
    size: Size = field(default_factory=Size)
    sampling: Sampling = field(default_factory=Sampling)
    seed: int | None = None
    batch_size: int = 1
    batch_count: int = 1
    clip_skip: int = 1
    emphasis: Emphasis = Emphasis.ORIGINAL
    template: Template | None = None
    checkpoint: str | None = None
    start: StartImage | None = None
    modules: tuple[ModuleUse, ...] = ()

    def __post_init__(self) -> None:
        _check_text("The prompt", self.prompt)
        _check_text("The negative prompt", self.negative_prompt)
        if self.seed is not None:
            _check_whole("Seed", self.seed, 0, MAX_SEED)
        _check_whole("Batch size", self.batch_size, 1, 64)
        _check_whole("Batch count", self.batch_count, 1, 1000)
        _check_whole("Clip skip", self.clip_skip, 1, 12)
        _check_choice("Emphasis", self.emphasis, Emphasis)
        if self.checkpoint is not None:
            _check_text("Checkpoint", self.checkpoint)
        if self.seed is not None and self.seed + self.pictures - 1 > MAX_SEED:
            raise RequestError(
                f"Seed is {self.seed}; with {self.pictures} pictures it must be at most {MAX_SEED - self.pictures + 1}."
            )

    @property
    def pictures(self) -> int:
        """How many pictures the request makes."""
        return self.batch_size * self.batch_count

    @property
    def is_resolved(self) -> bool:
        """Whether nothing random or "default" is left."""
        return self.seed is not None and self.checkpoint is not None and self.sampling.eta is not None

    def resolved(self, *, checkpoint: str, sampler: str, schedule: str, eta: float) -> Self:
        """This request with every "random" and "default" answered; an answer already given is kept.

        The names come from the registries, which know aliases and which schedule "Automatic" means.
        """
        seed = random.randrange(RANDOM_SEED_RANGE) if self.seed is None else self.seed
        sampling = replace(self.sampling, sampler=sampler, schedule=schedule, eta=eta)
        return replace(self, seed=seed, checkpoint=checkpoint, sampling=sampling)

    def to_dict(self) -> dict[str, Any]:
        """A plain JSON-ready dictionary with every field spelled out.  ``from_dict`` takes it back."""
        return typing.cast(dict[str, Any], _plain(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from plain values; absent fields take their defaults, unknown ones are an error that names them."""
        return typing.cast(Self, _build(cls, data, "request"))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _build(kind: Any, data: Any, where: str) -> Any:
    """``data`` as an instance of ``kind``, which is one of the annotations used in this module."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if data is None and type(None) in arguments:
            return None
        return _build(next(a for a in arguments if a is not type(None)), data, where)
    if origin is tuple:
        if not isinstance(data, list | tuple):
            raise RequestError(f"{where} must be a list.")
        return tuple(_build(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(data))
    if is_dataclass(kind) and isinstance(kind, type):
        return _build_record(kind, data, where)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if data not in [member.value for member in kind]:
            allowed = ", ".join(f'"{member.value}"' for member in kind)
            raise RequestError(f"{where} is {_shown(data)}; it must be one of {allowed}.")
        return kind(data)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, Mapping):
            raise RequestError(f"{where} must be an object.")
        return dict(data)
    if kind is float and isinstance(data, int) and not isinstance(data, bool) and abs(data) < 2**53:
        return float(data)
    return data


def _build_record(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise RequestError(f"{where} must be an object with named fields.")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    unknown = [name for name in data if name not in known]
    if unknown:
        names = ", ".join(map(_shown, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise RequestError(f"{where} has unknown fields {names}; known are {', '.join(known)}.")
    missing = [
        name
        for name, f in known.items()
        if name not in data and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RequestError(f"{where} lacks {', '.join(missing)}.")
    return kind(**{name: _build(hints[name], value, f"{where}.{name}") for name, value in data.items()})
