"""request <-> the ``parameters`` text that AUTOMATIC1111 writes into pictures, so that every existing tool reads ours.

    PROMPT
    Negative prompt: NEGATIVE
    Steps: 20, Sampler: Euler, Schedule type: Automatic, CFG scale: 7.0, Seed: 1, Size: 512x512, ...

Layout, order of the keys, quoting and the rules of reading are those of version 1.10 (``modules/processing.py``
``create_infotext``, ``modules/infotext_utils.py``).  A prompt that this layout cannot carry unchanged (with spaces at
its ends, or a line that looks like the layout) is written a second time, quoted, under ``Prompt verbatim`` or
``Negative prompt verbatim``, which :func:`parse` prefers and other tools leave alone.

``Version`` is ``webui 0.1.0``: AUTOMATIC1111 takes its own version numbers as orders to imitate its old behaviour, and
a text that is no version number as none.  Pictures are input from strangers: reading takes linear time and never fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from webui import __version__
from webui.errors import RequestError
from webui.request import (
    Emphasis,
    GenerationRequest,
    InpaintArea,
    Mask,
    MaskedContent,
    MaskMode,
    Size,
    StartImage,
    Template,
)

NEGATIVE = "Negative prompt:"
PROMPT_VERBATIM = "Prompt verbatim"
NEGATIVE_VERBATIM = "Negative prompt verbatim"
LORA_HASHES = "Lora hashes"
EMBEDDING_HASHES = "TI hashes"
SHORT_HASH = 10
"""Digits of a model's SHA-256 that the text holds."""
FEWEST_PAIRS = 3
"""A last line with fewer pairs belongs to the prompt."""


@dataclass(frozen=True)
class Infotext:
    """A text as read: ``fields`` are the pairs of its last line, in their order, unquoted."""

    prompt: str
    negative_prompt: str
    fields: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class InfotextFacts:
    """What the text says beside the request.

    ``model_hash`` is the full SHA-256; ``schedule_label`` what stands as schedule type; ``seed`` that of this picture.
    ``default_eta`` is the sampler's own (None: it takes none); another eta than that is written.  ``lora_hashes`` and
    ``embedding_hashes`` are the short hashes of the files that the prompts name, by name.  ``extra`` are pairs from
    hooks.
    """

    model_name: str
    model_hash: str
    schedule_label: str
    seed: int
    version: str = __version__
    default_eta: float | None = None
    lora_hashes: Mapping[str, str] = field(default_factory=dict)
    embedding_hashes: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadBack:
    """What a text could be turned into.

    ``start`` holds the numbers of a start image and its mask as plain values named like the fields of
    :class:`StartImage` and (under ``mask``) :class:`Mask`; the pictures themselves are not in a text.  ``unmapped``
    lists the pairs that mean nothing here, as ``Key: value``.
    """

    request: GenerationRequest
    start: Mapping[str, Any]
    unmapped: tuple[str, ...]


def write(request: GenerationRequest, facts: InfotextFacts) -> str:
    """The text for one picture of ``request``.  ``parse`` gives back the same prompts and pairs."""
    pairs = _pairs_of(request, facts)
    text = _layout(request, pairs, facts)
    plain = parse(text)
    if plain.prompt != request.prompt:
        pairs[PROMPT_VERBATIM] = request.prompt
    if plain.negative_prompt != request.negative_prompt:
        pairs[NEGATIVE_VERBATIM] = request.negative_prompt
    return _layout(request, pairs, facts)


def _pairs_of(request: GenerationRequest, facts: InfotextFacts) -> dict[str, str]:
    sampling, start = request.sampling, request.start
    pairs = {
        "Steps": str(sampling.steps),
        "Sampler": sampling.sampler,
        "Schedule type": facts.schedule_label,
        "CFG scale": str(float(sampling.cfg_scale)),
        "Seed": str(facts.seed),
        "Size": f"{request.size.width}x{request.size.height}",
        "Model hash": facts.model_hash[:SHORT_HASH],
        "Model": facts.model_name.rpartition("/")[2],
    }
    if start:
        pairs["Denoising strength"] = str(float(start.denoising_strength))
    if request.clip_skip > 1:
        pairs["Clip skip"] = str(request.clip_skip)
    pairs["RNG"] = "CPU"
    if start and start.mask:
        pairs |= _mask_pairs(start.mask)
    for key, hashes in ((LORA_HASHES, facts.lora_hashes), (EMBEDDING_HASHES, facts.embedding_hashes)):
        if hashes:
            pairs[key] = ", ".join(f"{re.sub('[:,]', '', name)}: {short}" for name, short in hashes.items())
    if request.emphasis is not Emphasis.ORIGINAL and set("([") & set(request.prompt + request.negative_prompt):
        pairs["Emphasis"] = request.emphasis.value
    if request.template:
        pairs["Template"] = request.template.prompt
        if request.template.negative_prompt:
            pairs["Negative Template"] = request.template.negative_prompt
    if sampling.eta is not None and facts.default_eta is not None and sampling.eta != facts.default_eta:
        # AUTOMATIC1111 has one eta for the samplers that add no noise by default and one for the ancestral ones.
        pairs["Eta" if facts.default_eta else "Eta DDIM"] = str(float(sampling.eta))
    for key, value in facts.extra.items():
        pairs.setdefault(_as_key(key), str(value).encode("utf-8", "replace").decode())
    return pairs


def _mask_pairs(mask: Mask) -> dict[str, str]:
    pairs = {"Mask blur": str(mask.blur)}
    if mask.mode is MaskMode.NOT_MASKED:
        pairs["Mask mode"] = mask.mode.value
    if mask.area is InpaintArea.ONLY_MASKED:
        pairs |= {"Inpaint area": mask.area.value, "Masked area padding": str(mask.padding)}
    if mask.content is not MaskedContent.ORIGINAL:
        pairs["Masked content"] = mask.content.value
    return pairs


def _as_key(name: str) -> str:
    """``name`` with only what a key may hold: word characters, spaces, ``-`` and ``/``, at least two."""
    key = re.sub(r"[^\w \-/]", " ", name).strip(" -/")
    return key if len(key) > 1 else f"Extra {key}".strip()


def _layout(request: GenerationRequest, pairs: Mapping[str, str], facts: InfotextFacts) -> str:
    negative = f"\n{NEGATIVE} {request.negative_prompt}" if request.negative_prompt else ""
    line = ", ".join(f"{key}: {quote(value)}" for key, value in pairs.items())
    return f"{request.prompt}{negative}\n{line}, Version: {quote(f'webui {facts.version}')}".strip()


def quote(value: str) -> str:
    """``value``, as a JSON string where it would not be read back as it is."""
    plain = not re.search(r'[,:\x00-\x1f]|^"|^$', value) and value == value.strip()
    return value if plain else json.dumps(value, ensure_ascii=False)


def unquote(value: str) -> str:
    """The text that :func:`quote` was given; what is not a JSON string stays as it is."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value


def parse(text: str) -> Infotext:
    """The prompts and pairs of a text; any text has some reading, if only that all of it is prompt."""
    *lines, last = text.strip().split("\n")
    pairs = list(_pairs_in(last))
    if len(pairs) < FEWEST_PAIRS:
        lines, pairs = [*lines, last], []
    prompt, negative = _prompts(lines)
    fields = dict(pairs)
    prompt = fields.pop(PROMPT_VERBATIM, prompt)
    negative = fields.pop(NEGATIVE_VERBATIM, negative)
    return Infotext(prompt, negative, fields)


def _prompts(lines: list[str]) -> tuple[str, str]:
    """Prompt and negative prompt: stripped lines, the empty ones at the beginning left out."""
    prompt: list[str] = []
    negative: list[str] = []
    current = prompt
    for line in map(str.strip, lines):
        if line.startswith(NEGATIVE):
            current, line = negative, line[len(NEGATIVE) :].strip()
        if line or current:
            current.append(line)
    return "\n".join(prompt), "\n".join(negative)


# AUTOMATIC1111 searches pairs with \s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$) from every position: quadratic
# time on a long line without colons.  These are the same pairs, found run by run.
_KEY_CHARACTERS = re.compile(r"[\w \-/]+")
_WORD_CHARACTER = re.compile(r"\w")
_QUOTED = re.compile(r'("(?:\\.|[^\\"])+")(?:,|$)')
_SPACE = re.compile(r"\s*")


def _pairs_in(line: str) -> Iterator[tuple[str, str]]:
    position = 0
    while run := _KEY_CHARACTERS.search(line, position):
        position = run.end()
        if not line.startswith(":", position):
            continue
        start = _WORD_CHARACTER.search(line, run.start(), run.end() - 1)
        position += 1
        if start:
            value, position = _value_at(line, position)
            yield line[start.start() : run.end()], value


def _value_at(line: str, position: int) -> tuple[str, int]:
    """The value from ``position`` on, and where the next pair may begin."""
    space = _SPACE.match(line, position)
    position = space.end() if space else position
    if quoted := _QUOTED.match(line, position):
        return unquote(quoted[1]), quoted.end()
    comma = line.find(",", position)
    end = len(line) if comma < 0 else comma
    return unquote(line[position:end].rstrip()), end + 1


SplitSampler = Callable[[str], tuple[str, str]]
"""A sampler's old combined name ("DPM++ 2M Karras") -> sampler and schedule."""


def to_request(
    infotext: Infotext, base: GenerationRequest, *, split_sampler: SplitSampler = lambda name: (name, "Automatic")
) -> ReadBack:
    """``base`` with everything that the text says; what the text's keys leave out means AUTOMATIC1111's default.

    ``split_sampler`` is asked where the text has a sampler and no schedule type.  Names of samplers and schedules are
    not checked here; the checkpoint becomes ``name [hash]``, which the library finds by either.
    """
    reader = _Reader(base, dict(infotext.fields))
    reader.take("Prompt", infotext.prompt, lambda request, text: replace(request, prompt=text))
    reader.take(
        "Negative prompt", infotext.negative_prompt, lambda request, text: replace(request, negative_prompt=text)
    )
    _read_sampling(reader, split_sampler)
    reader.take_pair("Seed", lambda request, text: replace(request, seed=None if int(text) < 0 else int(text)))
    reader.take_pair("Size", lambda request, text: replace(request, size=_size(text)))
    reader.take_pair("Batch size", lambda request, text: replace(request, batch_size=int(text)))
    reader.request = replace(reader.request, clip_skip=1)
    reader.take_pair("Clip skip", lambda request, text: replace(request, clip_skip=int(text)))
    reader.request = replace(reader.request, emphasis=Emphasis.ORIGINAL, template=None)
    reader.take_pair("Emphasis", lambda request, text: replace(request, emphasis=Emphasis(text)))
    _read_template(reader)
    _read_checkpoint(reader)
    start = _read_start(reader)
    for told in ("Version", LORA_HASHES, EMBEDDING_HASHES):  # the prompt names the files, by tag and by word
        reader.fields.pop(told, None)
    if reader.fields.get("RNG") == "CPU":
        del reader.fields["RNG"]
    unmapped = (*reader.refused, *(_shown(key, value) for key, value in reader.fields.items()))
    return ReadBack(reader.request, start, unmapped)


Change = Callable[[GenerationRequest, str], GenerationRequest]


@dataclass
class _Reader:
    """The request so far, the pairs not looked at yet, and those whose values cannot be."""

    request: GenerationRequest
    fields: dict[str, str]
    refused: list[str] = field(default_factory=list)

    def take(self, key: str, value: str, change: Change) -> None:
        try:
            self.request = change(self.request, value)
        except (ValueError, RequestError):
            self.refused.append(_shown(key, value))

    def take_pair(self, key: str, change: Change) -> None:
        if (value := self.fields.pop(key, None)) is not None:
            self.take(key, value, change)


def _shown(key: str, value: str) -> str:
    return f"{key}: {value if len(value) <= 200 else value[:200] + '…'}"


def _read_sampling(reader: _Reader, split_sampler: SplitSampler) -> None:
    def change(name: str, convert: Callable[[str], Any]) -> Change:
        return lambda request, text: replace(request, sampling=replace(request.sampling, **{name: convert(text)}))

    if sampler := reader.fields.get("Sampler"):
        schedule = "Automatic"
        if "Schedule type" not in reader.fields:
            reader.fields["Sampler"], schedule = split_sampler(sampler)
        reader.fields.setdefault("Schedule type", schedule)
    reader.request = replace(reader.request, sampling=replace(reader.request.sampling, schedule="Automatic", eta=None))
    reader.take_pair("Sampler", change("sampler", _name))
    reader.take_pair("Schedule type", change("schedule", _name))
    reader.take_pair("Steps", change("steps", int))
    reader.take_pair("CFG scale", change("cfg_scale", float))
    reader.take_pair("Eta", change("eta", float))
    reader.take_pair("Eta DDIM", change("eta", float))


def _read_template(reader: _Reader) -> None:
    """What the prompts were before choices were made in them; they stay as they became."""
    negative = reader.fields.pop("Negative Template", "")
    reader.take_pair(
        "Template", lambda request, text: replace(request, template=Template(prompt=text, negative_prompt=negative))
    )


def _name(text: str) -> str:
    if not text:
        raise ValueError("no name")
    return text


def _size(text: str) -> Size:
    width, _, height = text.partition("x")
    return Size(width=int(width), height=int(height))


def _read_checkpoint(reader: _Reader) -> None:
    name, short = reader.fields.pop("Model", ""), reader.fields.pop("Model hash", "")
    if name or short:
        title = f"{name} [{short}]" if name and short else name or short
        reader.take("Model", title, lambda request, text: replace(request, checkpoint=text))


HIRES_KEYS = ("Hires upscale", "Hires upscaler", "Hires resize")
_NO_PICTURE = "0" * 64


def _one_of(kind: type[StrEnum]) -> Callable[[str], StrEnum]:
    return kind


_MASK_KEYS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "Mask blur": ("blur", int),
    "Mask mode": ("mode", _one_of(MaskMode)),
    "Masked content": ("content", _one_of(MaskedContent)),
    "Inpaint area": ("area", _one_of(InpaintArea)),
    "Masked area padding": ("padding", int),
}


def _read_start(reader: _Reader) -> dict[str, Any]:
    """The numbers of a start image and its mask.  With hires fix the denoising strength belongs to that, not here."""
    start: dict[str, Any] = {}
    if not any(key in reader.fields for key in HIRES_KEYS) and "Denoising strength" in reader.fields:
        text = reader.fields.pop("Denoising strength")
        try:
            read = StartImage(image=_NO_PICTURE, denoising_strength=float(text))
            start["denoising_strength"] = read.denoising_strength
        except (ValueError, RequestError):
            reader.refused.append(_shown("Denoising strength", text))
    if any(key in reader.fields for key in _MASK_KEYS):
        start["mask"] = _read_mask(reader)
    return start


def _read_mask(reader: _Reader) -> dict[str, Any]:
    mask = Mask(image=_NO_PICTURE)
    for key, (name, convert) in _MASK_KEYS.items():
        text = reader.fields.pop(key, None)
        if text is None:
            continue
        try:
            mask = replace(mask, **{name: convert(text)})
        except (ValueError, RequestError):
            reader.refused.append(_shown(key, text))
    plain = {name: getattr(mask, name) for name, _ in _MASK_KEYS.values()}
    return {name: value.value if isinstance(value, StrEnum) else value for name, value in plain.items()}
