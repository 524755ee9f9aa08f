"""The pairs of a ``parameters`` text -> request.

Everything the text says goes into the request, what its keys leave out means AUTOMATIC1111's default (``modules/
infotext_utils.py``, parse_generation_parameters), and what means nothing here is listed.  Values come from strangers:
one that cannot be is listed, too, and changes nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from webui.diffusion.schedules import AUTOMATIC
from webui.errors import RequestError
from webui.metadata import keys
from webui.metadata.fields import BUILT_IN, InfotextField
from webui.metadata.infotext import EMBEDDING_HASHES, LORA_HASHES, Infotext
from webui.metadata.keys import HIRES_KEYS, changed
from webui.metadata.versions import (
    EXACT_ALPHAS,
    REFINER_BY_NOISE,
    TIMELINES_COUNT_ON,
    Version,
    parse_version,
)
from webui.metadata.writing import SOFT, SOFT_KEYS
from webui.request import (
    AUTOMATIC_VAE,
    BUILT_IN_VAE,
    Compatibility,
    Emphasis,
    FaceRestoration,
    GenerationRequest,
    Guidance,
    InpaintArea,
    Mask,
    MaskedContent,
    MaskMode,
    ModuleUse,
    Noise,
    Refiner,
    RefinerPasses,
    SamplerOptions,
    SecondPass,
    Size,
    SoftInpainting,
    StartImage,
    Template,
    TokenMerging,
)
from webui.request import RandomSource as Source

SplitSampler = Callable[[str], tuple[str, str]]
"""A sampler's old combined name ("DPM++ 2M Karras") -> sampler and schedule."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known here and helps to read a text.

    ``split_sampler`` is asked where the text has a sampler and no schedule type; ``default_schedule`` gives the
    schedule that "Automatic" means for a sampler (None: the uniform one).  ``lora_named`` gives the name here of the
    LoRA that a text calls by a name and with a hash.  ``old_behaviour``: the text's version asks for the behaviour of
    its time.  ``modules`` takes out of the pairs that mean nothing else those of conditioning modules: their uses, and
    what was not understood.  ``fields`` are further keys that stand for one field each.
    """

    split_sampler: SplitSampler = lambda name: (name, AUTOMATIC)
    default_schedule: Callable[[str], str | None] = lambda sampler: None
    lora_named: Callable[[str, str], str] = lambda name, short_hash: name
    old_behaviour: bool = True
    modules: Callable[[dict[str, str]], tuple[Sequence[ModuleUse], Sequence[str]]] = lambda fields: ((), ())
    fields: Sequence[InfotextField] = BUILT_IN


NOTHING_KNOWN = Known()


@dataclass(frozen=True)
class ReadBack:
    """What a file's text could be turned into.

    ``start`` holds the numbers of a start image and its mask as plain values named like the fields of
    :class:`StartImage` and (under ``mask``) :class:`Mask`; the pictures themselves are not in a text.  ``unmapped``
    lists the pairs that mean nothing here, as ``Key: value``.  ``program`` made the file, ``items`` is all it said.
    """

    request: GenerationRequest
    start: Mapping[str, Any]
    unmapped: tuple[str, ...]
    program: str = ""
    items: Mapping[str, str] = field(default_factory=dict)


def to_request(infotext: Infotext, base: GenerationRequest, known: Known = NOTHING_KNOWN) -> ReadBack:
    """``base`` with everything that the text says; what the text's keys leave out means AUTOMATIC1111's default.

    Names of samplers, schedules and files are not checked here; a checkpoint becomes ``name [hash]``, which the library
    finds by either.
    """
    fields = {keys.OTHER_SPELLINGS.get(key, key): value for key, value in infotext.fields.items()}
    reader = _Reader(_fresh(base) if fields else replace(_fresh(base), noise=base.noise), fields)
    version = parse_version(fields.get("Version", ""))
    _read_prompts(reader, infotext, known)
    _read_sampling(reader, known)
    for plain in keys.PLAIN:
        reader.take_path(plain.key, plain.path, plain.read)
    _read_size(reader)
    _read_noise(reader)
    _read_template(reader)
    _read_models(reader, version)
    _read_second_pass(reader, known)
    _read_refiner(reader)
    start = _read_start(reader)
    if version is not None and known.old_behaviour:
        _behave_as(version, reader)
    program = _program(infotext.fields.get("Version", ""), version)
    _forget_what_says_nothing(reader)
    for one in known.fields:
        reader.take_path(one.key, one.path, one.read)
    uses, refused = known.modules(reader.fields)
    reader.request = replace(reader.request, modules=tuple(uses))
    reader.refused += [item if len(item) <= 240 else f"{item[:239]}…" for item in refused]
    unmapped = (*reader.refused, *(_shown(key, value) for key, value in reader.fields.items()))
    return ReadBack(reader.request, start, unmapped, program, dict(infotext.fields))


def _fresh(base: GenerationRequest) -> GenerationRequest:
    """``base`` without what a text that is silent about it means to be off."""
    sampling = replace(base.sampling, schedule=AUTOMATIC, eta=None, options=SamplerOptions(), guidance=Guidance())
    return replace(
        base,
        styles=(),
        sampling=sampling,
        noise=Noise(source=Source.GPU),
        clip_skip=1,
        emphasis=Emphasis.ORIGINAL,
        template=None,
        vae=AUTOMATIC_VAE,
        tiling=False,
        second_pass=None,
        refiner=None,
        start=None,
        face_restoration=None,
        token_merging=TokenMerging(),
        compatibility=Compatibility(),
    )


Change = Callable[[GenerationRequest, str], GenerationRequest]


@dataclass
class _Reader:
    """The request so far, the pairs not looked at yet, and those whose values cannot be."""

    request: GenerationRequest
    fields: dict[str, str]
    refused: list[str] = field(default_factory=list)

    def take(self, key: str, value: str, change: Change) -> None:
        """Change the request by a value; one that cannot be is refused."""
        try:
            self.request = change(self.request, value)
        except (ValueError, OverflowError, RequestError):
            self.refused.append(_shown(key, value))

    def take_pair(self, key: str, change: Change) -> None:
        """Change the request by the value of a key, where the text has it."""
        if (value := self.fields.pop(key, None)) is not None:
            self.take(key, value, change)

    def take_path(self, key: str, path: str, read: Callable[[str], Any]) -> None:
        """Put the value of a key into the field at a path."""
        self.take_pair(key, lambda request, text: changed(request, path, read(text)))

    def value(self, key: str, read: Callable[[str], Any], default: Any) -> Any:
        """The value of a key, ``default`` where the text has none or one that cannot be read."""
        if (text := self.fields.pop(key, None)) is None:
            return default
        try:
            return read(text)
        except (ValueError, OverflowError):
            self.refused.append(_shown(key, text))
            return default


def _shown(key: str, value: str) -> str:
    return f"{key}: {value if len(value) <= 200 else value[:200] + '…'}"


def _read_prompts(reader: _Reader, infotext: Infotext, known: Known) -> None:
    prompt, negative = infotext.prompt, infotext.negative_prompt
    prompt += _old_networks(reader.fields)
    hashes = _pairs_in(reader.fields.get(LORA_HASHES, ""))
    prompt, negative = (_renamed(text, hashes, known) for text in (prompt, negative))
    reader.take("Prompt", prompt, lambda request, text: replace(request, prompt=text))
    reader.take("Negative prompt", negative, lambda request, text: replace(request, negative_prompt=text))


_HASH_BEHIND = re.compile(r"\(([0-9a-f]+)\)$")


def _old_networks(fields: dict[str, str]) -> str:
    """Tags for what was named by keys before there were tags: a hypernetwork, LoRAs of Additional Networks."""
    tags = ""
    if hypernet := fields.pop("Hypernet", None):
        name = _HASH_BEHIND.sub("", hypernet)
        tags += f"<hypernet:{name}:{fields.pop('Hypernet strength', '1.0')}>"
    enabled = fields.pop("AddNet Enabled", "True").casefold() != "false"
    loras = ""
    for key in [key for key in fields if key.startswith("AddNet Module ")]:
        number = key.removeprefix("AddNet Module ")
        if fields[key] != "LoRA" or f"AddNet Model {number}" not in fields:
            continue
        del fields[key]
        name = _HASH_BEHIND.sub("", fields.pop(f"AddNet Model {number}"))
        weight = fields.pop(f"AddNet Weight {number}", "1.0")
        unet, text = fields.pop(f"AddNet Weight A {number}", weight), fields.pop(f"AddNet Weight B {number}", weight)
        if enabled:
            loras += f"<lora:{name}:{unet}>" if unet == text else f"<lora:{name}:{text}:{unet}>"
    return tags + (f"\n{loras}" if loras else "")


_LORA_TAG = re.compile(r"<lora:([^:>]+)(?=[:>])")


def _renamed(prompt: str, hashes: Mapping[str, str], known: Known) -> str:
    """A prompt whose LoRAs are called by the names that they have here."""
    if not hashes:
        return prompt

    def here(match: re.Match[str]) -> str:
        short = hashes.get(match[1]) or hashes.get(match[1].replace(",", ""))
        return f"<lora:{known.lora_named(match[1], short)}" if short else match[0]

    return _LORA_TAG.sub(here, prompt)


def _pairs_in(text: str) -> dict[str, str]:
    """The names and hashes in the value of "Lora hashes"."""
    pairs = [part.rpartition(":") for part in text.split(",")]
    return {name.strip(): short.strip() for name, _, short in pairs if name.strip() and short.strip()}


def _read_sampling(reader: _Reader, known: Known) -> None:
    if sampler := reader.fields.get("Sampler"):
        schedule = AUTOMATIC
        if "Schedule type" not in reader.fields:
            reader.fields["Sampler"], schedule = known.split_sampler(sampler)
        reader.fields.setdefault("Schedule type", schedule)
    reader.take_path("Sampler", "sampling.sampler", _name)
    reader.take_path("Schedule type", "sampling.schedule", _name)
    reader.take_path("Steps", "sampling.steps", keys.count)
    reader.take_path("CFG scale", "sampling.cfg_scale", float)
    own = "Eta DDIM" if reader.request.sampling.sampler.startswith("DDIM") else "Eta"
    reader.take_path(own, "sampling.eta", float)
    if not _has_second_pass(reader.fields):
        reader.take_path("Eta" if own == "Eta DDIM" else "Eta DDIM", "sampling.eta", float)
    if reader.fields.get("Noise Schedule") in ("Zero Terminal SNR", "Default"):
        zero = reader.fields.pop("Noise Schedule") == "Zero Terminal SNR"
        reader.request = changed(reader.request, "sampling.options.zero_terminal_snr", zero)


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


def _sides(text: str) -> tuple[int, int]:
    """Width and height of "512x768".  Raises ValueError."""
    width, _, height = text.partition("x")
    return int(width), int(height)


def _read_size(reader: _Reader) -> None:
    def change(request: GenerationRequest, text: str) -> GenerationRequest:
        width, height = _sides(text)
        return replace(request, size=Size(width=width, height=height))

    first, size = reader.fields.pop("First pass size", None), reader.fields.get("Size")
    if first is not None and size is not None and "Hires resize" not in reader.fields:
        try:
            sides = _sides(first)
            reader.fields |= {"Size": "{}x{}".format(*(sides if all(sides) else _old_first_pass(*_sides(size))))}
            reader.fields["Hires resize"] = size
        except (ValueError, ZeroDivisionError, OverflowError):
            reader.refused.append(_shown("First pass size", first))
    reader.take_pair("Size", change)
    reader.take_path("Batch size", "batch_size", keys.count)


def _old_first_pass(width: int, height: int) -> tuple[int, int]:
    """The first pass's size of old versions: about 512 x 512 pixels in the picture's proportion, multiples of 64."""
    scale = math.sqrt(512 * 512 / (width * height))
    return math.ceil(scale * width / 64) * 64, math.ceil(scale * height / 64) * 64


def _read_noise(reader: _Reader) -> None:
    def seed(text: str) -> int | None:
        return None if int(text) < 0 else int(text)

    def sides(request: GenerationRequest, text: str) -> GenerationRequest:
        width, height = _sides(text)
        return replace(request, noise=replace(request.noise, from_width=width, from_height=height))

    reader.take_path("Seed", "seed", seed)
    reader.take_path("Variation seed", "noise.variation_seed", seed)
    reader.take_path("Variation seed strength", "noise.variation_strength", float)
    reader.take_pair("Seed resize from", sides)


def _read_models(reader: _Reader, version: Version | None) -> None:
    """The checkpoint, its VAE and what mends faces."""
    name, short = reader.fields.pop("Model", ""), reader.fields.pop("Model hash", "")
    if name or short:
        title = f"{name} [{short}]" if name and short else name or short
        reader.take("Model", title, lambda request, text: replace(request, checkpoint=text))
    vae, short = reader.fields.pop("VAE", ""), reader.fields.pop("VAE hash", "")
    if not vae and not short:
        vae = _vae_among_modules(reader.fields)
    if vae in (AUTOMATIC_VAE, BUILT_IN_VAE):
        reader.request = replace(reader.request, vae=vae)
    elif vae or short:
        title = f"{vae} [{short}]" if vae and short else vae or short
        reader.take("VAE", title, lambda request, text: replace(request, vae=text))
    elif name and (_is_ours(reader.fields) or (version is not None and version.names_its_vae)):
        reader.request = replace(reader.request, vae=BUILT_IN_VAE)  # it would have been named
    reader.take_pair(
        "Face restoration", lambda request, text: replace(request, face_restoration=FaceRestoration(model=_name(text)))
    )


_TEXT_ENCODER = re.compile(r"t5|clip|gemma|llama|qwen|text_encoder", re.IGNORECASE)


def _vae_among_modules(fields: dict[str, str]) -> str:
    """The VAE among Forge's additional modules: the only one that is not named like a text encoder."""
    modules = [key for key in fields if re.fullmatch(r"Module [0-9]+", key)]
    vaes = [key for key in modules if not _TEXT_ENCODER.search(fields[key])]
    return fields.pop(vaes[0]) if len(vaes) == 1 else ""


def _read_second_pass(reader: _Reader, known: Known) -> None:
    if not _has_second_pass(reader.fields):
        return
    reader.request = replace(reader.request, second_pass=SecondPass())

    def resize(request: GenerationRequest, text: str) -> GenerationRequest:
        width, height = _sides(text)
        second = replace(request.second_pass or SecondPass(), width=width, height=height)
        return replace(request, second_pass=second)

    _same_means_none(reader.fields)
    reader.take_pair("Hires resize", resize)
    for key, name, read in _SECOND_PASS_KEYS:
        reader.take_path(key, f"second_pass.{name}", read)
    second = reader.request.second_pass
    assert second is not None
    if second.sampler and second.schedule is None:
        reader.request = replace(reader.request, second_pass=replace(second, schedule=_later(reader.request, known)))


_SECOND_PASS_KEYS: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("Denoising strength", "denoising_strength", float),
    ("Hires upscale", "scale", float),
    ("Hires steps", "steps", keys.count),
    ("Hires upscaler", "upscaler", _name),
    ("Hires checkpoint", "checkpoint", _name),
    ("Hires sampler", "sampler", _name),
    ("Hires schedule type", "schedule", _name),
    ("Hires prompt", "prompt", str),
    ("Hires negative prompt", "negative_prompt", str),
    ("Hires CFG Scale", "cfg_scale", float),
    ("Eta", "eta", float),
    ("Eta DDIM", "eta", float),
    ("Hires eta", "eta", float),
)
"""With those of both kinds of eta the one that is not the first sampler's is left for the second pass."""


def _has_second_pass(fields: Mapping[str, str]) -> bool:
    return "Denoising strength" in fields and any(key in fields for key in HIRES_KEYS)


def _same_means_none(fields: dict[str, str]) -> None:
    """Leave out the words that mean "as in the first pass"."""
    for key in ("Hires checkpoint", "Hires sampler", "Hires schedule type"):
        if fields.get(key, "").casefold().startswith("use same"):
            del fields[key]


def _later(request: GenerationRequest, known: Known) -> str | None:
    """The schedule of a second pass with a sampler of its own whose schedule is not written.

    It is the first pass's then, or its own sampler's default; that, where the first pass's is the default of its own.
    """
    label = request.sampling.schedule
    is_default = label == (known.default_schedule(request.sampling.sampler) or AUTOMATIC)
    return AUTOMATIC if is_default else None


def _read_refiner(reader: _Reader) -> None:
    fields = reader.fields
    name = fields.pop("Refiner", "")
    share = reader.value("Refiner switch at", float, 0.8)
    by_steps = reader.value("Refiner switch by sampling steps", keys.flag, False)
    passes = reader.value("Hires refiner", RefinerPasses, RefinerPasses.SECOND)
    if name and name != "None":

        def change(request: GenerationRequest, text: str) -> GenerationRequest:
            refiner = Refiner(checkpoint=text, switch_at=share, by_steps=by_steps, passes=passes)
            return replace(request, refiner=refiner)

        reader.take("Refiner", name, change)


_NO_PICTURE = "0" * 64

_MASK_KEYS: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("Mask blur", "blur", keys.count),
    ("Mask mode", "mode", MaskMode),
    ("Masked content", "content", MaskedContent),
    ("Inpaint area", "area", InpaintArea),
    ("Masked area padding", "padding", keys.count),
)


def _read_start(reader: _Reader) -> dict[str, Any]:
    """The numbers of a start image and its mask.  With hires fix the denoising strength belongs to that, not here."""
    start: dict[str, Any] = {}
    image = StartImage(image=_NO_PICTURE)
    for key, name in (("Denoising strength", "denoising_strength"), ("Noise multiplier", "noise_multiplier")):
        if key in reader.fields:
            image, told = _told(reader, key, image, name, float)
            start |= told
    soft = _read_soft(reader)
    if soft is not None or any(key in reader.fields for key, _, _ in _MASK_KEYS):
        start["mask"] = _read_mask(reader)
        if soft is not None:
            start["mask"]["soft"] = {name: getattr(soft, name) for name in SOFT_KEYS}
    return start


def _told(reader: _Reader, key: str, record: Any, name: str, read: Callable[[str], Any]) -> tuple[Any, dict[str, Any]]:
    """A record with the value of a key, and that value; as it was for a value that cannot be."""
    text = reader.fields.pop(key)
    try:
        record = replace(record, **{name: read(text)})
    except (ValueError, OverflowError, RequestError):
        reader.refused.append(_shown(key, text))
        return record, {}
    return record, {name: getattr(record, name)}


def _read_mask(reader: _Reader) -> dict[str, Any]:
    mask = Mask(image=_NO_PICTURE)
    for key, name, read in _MASK_KEYS:
        if key in reader.fields:
            mask, _ = _told(reader, key, mask, name, read)
    return {
        "blur": mask.blur,
        "mode": mask.mode.value,
        "content": mask.content.value,
        "area": mask.area.value,
        "padding": mask.padding,
    }


def _read_soft(reader: _Reader) -> SoftInpainting | None:
    enabled = reader.value(f"{SOFT} enabled", keys.flag, False)
    soft = SoftInpainting()
    for name, key in SOFT_KEYS.items():
        if key in reader.fields:
            soft, _ = _told(reader, key, soft, name, float)
    return soft if enabled else None


def _behave_as(version: Version, reader: _Reader) -> None:
    """Switch on what a picture of an older version was made with (``modules/infotext_versions.py``), and Forge's."""
    request, release = reader.request, version.release
    if release < TIMELINES_COUNT_ON and "[" in request.prompt:
        request = changed(request, "compatibility.old_prompt_editing", True)
    if release < TIMELINES_COUNT_ON and request.sampling.sampler in ("DDIM", "PLMS"):
        request = changed(request, "sampling.guidance.pad_v0", True)
    if release < EXACT_ALPHAS:
        request = changed(request, "compatibility.downcast_alphas", True)
    if release < REFINER_BY_NOISE and request.refiner is not None:
        request = changed(request, "refiner.by_steps", True)
    if version.is_forge:
        request = changed(request, "compatibility.whole_timesteps", True)
    reader.request = request


OURS = "webui"
"""The word before our version number."""


def _is_ours(fields: Mapping[str, str]) -> bool:
    return fields.get("Version", "").startswith(f"{OURS} ")


def _program(text: str, version: Version | None) -> str:
    """The name of the program that wrote a text of this ``Version``."""
    if text.startswith(f"{OURS} "):
        return OURS
    if version is not None:
        return "Forge" if version.is_forge else "AUTOMATIC1111"
    if text.startswith("neo"):
        return "Forge"
    return text if re.match(r"[A-Za-z]", text) and len(text) <= 60 else "AUTOMATIC1111"


_SAYS_NOTHING = frozenset(
    {
        *("Version", "User", LORA_HASHES, EMBEDDING_HASHES, "TI", "Init image hash", "Hashes", "Batch pos"),
        *("AddNet Enabled", "Hypernet strength"),
    }
)
"""Told by others: the prompt names files by tag and by word."""
_DEFAULTS = {
    "VAE Encoder": ("Full",),
    "VAE Decoder": ("Full",),
    "FP8 weight": ("Disable",),
    "Cache FP16 weight for LoRA": ("False",),
    "Diffusion in Low Bits": ("Automatic",),
    "Hires Module 1": ("Use same choices", "Built-in"),
    "Face restoration": ("None",),
    "Hires upscaler": ("None",),
}
"""Values that mean that nothing was done."""


def _forget_what_says_nothing(reader: _Reader) -> None:
    for key in list(reader.fields):
        if key in _SAYS_NOTHING or reader.fields[key] in _DEFAULTS.get(key, ()):
            del reader.fields[key]
