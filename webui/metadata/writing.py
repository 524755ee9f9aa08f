"""request -> the pairs of its ``parameters`` text, each at the moments at which AUTOMATIC1111 1.10 writes it.

Keys that have no word there (for options that it does not have) stand at the end, before the version.  Options that it
has and does not write (resize mode, colour correction, ...) are in the recipe only, so that both write the same pairs.

``Version`` is ``webui 0.1.0``: AUTOMATIC1111 takes its own version numbers as orders to imitate its old behaviour, and
a text that is no version number as none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from webui import __version__
from webui.diffusion.schedules import AUTOMATIC
from webui.metadata import fields as own_fields
from webui.metadata.infotext import EMBEDDING_HASHES, LORA_HASHES, SHORT_HASH, layout
from webui.metadata.module_texts import CLASH, as_key
from webui.request import (
    Emphasis,
    GenerationRequest,
    InpaintArea,
    Mask,
    MaskedContent,
    MaskMode,
    RandomSource,
    Refiner,
    RefinerPasses,
    SoftInpainting,
)

OWN_RHO = {"Karras": 7.0, "Polyexponential": 1.0}
"""The schedules that take a rho, and their own."""
BETA = "Beta"
SOFT = "Soft inpainting"
_SOFT_FIELDS = (
    *("schedule_bias", "preservation_strength", "transition_contrast_boost"),
    *("mask_influence", "difference_threshold", "difference_contrast"),
)
SOFT_KEYS = {name: f"{SOFT} {name.replace('_', ' ')}" for name in _SOFT_FIELDS}
"""Keys of soft inpainting by the field of :class:`SoftInpainting`."""
_EDIT = re.compile(r":\s*[+-]?[0-9.]+\s*\]")


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What the text has to know about the sampler and the schedule of a pass.

    ``label`` is what stands as schedule type, ``default_schedule`` the sampler's own (None: the uniform one).
    ``default_eta`` is the sampler's own (None: it takes none).
    ``takes_churn`` and ``takes_noise_scale``: the sampler has s_churn, s_tmin, s_tmax; s_noise.  ``on_timesteps``: it
    walks timesteps and takes no schedule.  ``draws_noise``: it adds noise that the seed offset (ENSD) changes.
    ``discards_penultimate``: it always does.  ``spans_levels``: it walks levels of its own between the two ends,
    whatever the schedule.
    """

    label: str
    default_schedule: str | None = None
    default_eta: float | None = None
    takes_churn: bool = True
    takes_noise_scale: bool = True
    on_timesteps: bool = False
    draws_noise: bool = True
    discards_penultimate: bool = False
    spans_levels: bool = False

    @property
    def has_schedule(self) -> bool:
        """Whether a schedule of a name makes its levels, which the options of schedules then change."""
        return not self.on_timesteps and self.label != AUTOMATIC


@dataclass(frozen=True, kw_only=True)
class InfotextFacts:
    """What the text says beside the request.

    ``model_hash`` is the full SHA-256; ``seed`` and ``variation_seed`` are those of this picture.  ``walk`` and
    ``second_walk`` tell about the passes; another eta than a sampler's own is written.  ``vae`` and ``vae_hash`` name
    the file that stands in for the checkpoint's own VAE.  ``lora_hashes`` and ``embedding_hashes`` are the short
    hashes of the files that the prompts name, by name; ``titles`` what stands for other checkpoints ("name [hash]") by
    the request's name.  ``padded``: the contexts had different lengths.  ``modules``
    are the pairs of conditioning modules (``module_texts``), ``extra`` those from hooks, ``fields`` further keys.
    """

    model_name: str
    model_hash: str
    seed: int
    walk: Walk
    second_walk: Walk | None = None
    variation_seed: int | None = None
    vae: str = ""
    vae_hash: str = ""
    version: str = __version__
    lora_hashes: Mapping[str, str] = field(default_factory=dict)
    embedding_hashes: Mapping[str, str] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    padded: bool = True
    modules: Mapping[str, str] = field(default_factory=dict)
    fields: Sequence[own_fields.InfotextField] = own_fields.BUILT_IN
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def walks(self) -> Sequence[Walk]:
        """Those of all passes."""
        return (self.walk, self.second_walk) if self.second_walk else (self.walk,)


Pairs = dict[str, str]

_CHANGED_BY_WEIGHTS = re.compile(r"[(\[]")
_CHANGED_BY_NONE = re.compile(r"[(\[\\]|\bBREAK\b")
"""What the modes of emphasis read otherwise; AUTOMATIC1111 looks for brackets only."""


def write(request: GenerationRequest, facts: InfotextFacts) -> str:
    """The text for one picture of a resolved ``request``; ``infotext.parse`` gives back its prompts and pairs."""
    return layout(request.prompt, request.negative_prompt, pairs(request, facts))


def pairs(request: GenerationRequest, facts: InfotextFacts) -> Pairs:
    """The text's keys and values, in their order."""
    result = (
        _head(request, facts)
        | _noise_and_strength(request, facts)
        | _soft(request)
        | _second_pass(request, facts)
        | _mask(request.start.mask if request.start else None)
        | _hashes(facts)
        | _prompt_options(request)
        | _schedule(request, facts)
        | _sampler(request, facts)
        | _guidance(request, facts)
        | _refiner(request, facts)
        | _own(request, facts)
    )
    for key, value in own_fields.pairs(request, facts.fields):
        if value:
            result.setdefault(as_key(key), value)
    for key, value in facts.modules.items():
        result[key if key not in result else key + CLASH] = value
    for key, value in facts.extra.items():
        result.setdefault(as_key(key), str(value).encode("utf-8", "replace").decode())
    result.pop("Version", None)
    return {**result, "Version": f"webui {facts.version}"}


def _head(request: GenerationRequest, facts: InfotextFacts) -> Pairs:
    sampling = request.sampling
    head = {
        "Steps": str(sampling.steps),
        "Sampler": sampling.sampler,
        "Schedule type": facts.walk.label,
        "CFG scale": _number(sampling.cfg_scale),
        "Seed": str(facts.seed),
    }
    if request.face_restoration:
        head["Face restoration"] = request.face_restoration.model
    head |= {
        "Size": f"{request.size.width}x{request.size.height}",
        "Model hash": facts.model_hash[:SHORT_HASH],
        "Model": facts.model_name.rpartition("/")[2],
    }
    if facts.vae:
        head |= {"VAE hash": facts.vae_hash[:SHORT_HASH], "VAE": facts.vae}
    return head


def _noise_and_strength(request: GenerationRequest, facts: InfotextFacts) -> Pairs:
    noise, start, second, found = request.noise, request.start, request.second_pass, Pairs()
    if noise.variation_strength and facts.variation_seed is not None:
        found["Variation seed"] = str(facts.variation_seed)
        found["Variation seed strength"] = _number(noise.variation_strength)
    if noise.from_width and noise.from_height:
        found["Seed resize from"] = f"{noise.from_width}x{noise.from_height}"
    if start or second:
        found["Denoising strength"] = _number((start or second).denoising_strength)  # type: ignore[union-attr]
    if request.clip_skip > 1:
        found["Clip skip"] = str(request.clip_skip)
    if noise.later_offset and any(walk.draws_noise for walk in facts.walks):
        found["ENSD"] = str(noise.later_offset)
    merging = request.token_merging
    if merging.ratio:
        found["Token merging ratio"] = _number(merging.ratio)
    if second and (later := merging.second_pass or merging.ratio):
        found["Token merging ratio hr"] = _number(later)
    if noise.source is not RandomSource.GPU:
        found["RNG"] = noise.source.value
    if request.tiling:
        found["Tiling"] = "True"
    return found


def _second_pass(request: GenerationRequest, facts: InfotextFacts) -> Pairs:
    second, found = request.second_pass, Pairs()
    if second is None:
        return found
    if second.checkpoint and second.checkpoint != request.checkpoint:
        found["Hires checkpoint"] = facts.titles.get(second.checkpoint, second.checkpoint)
    if second.sampler and second.sampler != request.sampling.sampler:
        found["Hires sampler"] = second.sampler
    if second.prompt and second.prompt != request.prompt:
        found["Hires prompt"] = second.prompt
    if second.negative_prompt and second.negative_prompt != request.negative_prompt:
        found["Hires negative prompt"] = second.negative_prompt
    if second.cfg_scale is not None and second.cfg_scale != request.sampling.cfg_scale:
        found["Hires CFG Scale"] = _number(second.cfg_scale)
    if facts.second_walk and (label := _second_label(facts.walk, facts.second_walk)):
        found["Hires schedule type"] = label
    if second.width or second.height:
        found["Hires resize"] = f"{second.width}x{second.height}"
    else:
        found["Hires upscale"] = _number(second.scale)
    if second.steps:
        found["Hires steps"] = str(second.steps)
    found["Hires upscaler"] = second.upscaler
    return found


def _second_label(first: Walk, second: Walk) -> str | None:
    """The second pass's schedule type, where it is another than the first pass's or than what readers take it for."""
    if second.label != first.label and second.has_schedule:
        return second.label
    taken_for = first.label
    if first.label == (first.default_schedule or AUTOMATIC):
        taken_for = second.default_schedule or AUTOMATIC
    return None if second.on_timesteps or second.label == taken_for else second.label


def _mask(mask: Mask | None) -> Pairs:
    found = Pairs()
    if mask is None:
        return found
    if mask.blur_y in (None, mask.blur):
        found["Mask blur"] = str(mask.blur)
    if mask.mode is MaskMode.NOT_MASKED:
        found["Mask mode"] = mask.mode.value
    if mask.area is InpaintArea.ONLY_MASKED:
        found |= {"Inpaint area": mask.area.value, "Masked area padding": str(mask.padding)}
    if mask.content is not MaskedContent.ORIGINAL:
        found["Masked content"] = mask.content.value
    return found


def _soft(request: GenerationRequest) -> Pairs:
    soft: SoftInpainting | None = request.start.mask.soft if request.start and request.start.mask else None
    if soft is None:
        return Pairs()
    return {f"{SOFT} enabled": "True"} | {key: _short(getattr(soft, name)) for name, key in SOFT_KEYS.items()}


def _hashes(facts: InfotextFacts) -> Pairs:
    named = ((LORA_HASHES, facts.lora_hashes), (EMBEDDING_HASHES, facts.embedding_hashes))
    return {
        key: ", ".join(f"{re.sub('[:,]', '', name)}: {short}" for name, short in hashes.items())
        for key, hashes in named
        if hashes
    }


def _prompt_options(request: GenerationRequest) -> Pairs:
    found, second, compatibility = Pairs(), request.second_pass, request.compatibility
    prompts = [request.prompt, request.negative_prompt, *([second.prompt, second.negative_prompt] if second else [])]
    changing = _CHANGED_BY_NONE if request.emphasis is Emphasis.NONE else _CHANGED_BY_WEIGHTS
    if request.emphasis is not Emphasis.ORIGINAL and any(changing.search(prompt) for prompt in prompts):
        found["Emphasis"] = request.emphasis.value
    if compatibility.old_prompt_editing and any(_EDIT.search(prompt) for prompt in prompts):
        found["Old prompt editing timelines"] = "True"
    if compatibility.downcast_alphas:
        found["Downcast alphas_cumprod"] = "True"
    if request.sampling.options.zero_terminal_snr:
        found["Noise Schedule"] = "Zero Terminal SNR"
    return found


def _schedule(request: GenerationRequest, facts: InfotextFacts) -> Pairs:
    options, found, walks = request.sampling.options, Pairs(), facts.walks
    labels = {walk.label for walk in walks if walk.has_schedule}
    leveled = [walk for walk in walks if not walk.on_timesteps]
    if request.start and request.start.noise_multiplier != 1:
        found["Noise multiplier"] = _number(request.start.noise_multiplier)
    if options.discard_penultimate and any(not walk.discards_penultimate for walk in leveled):
        found["Discard penultimate sigma"] = "True"
    spanned = bool(labels) or any(walk.spans_levels for walk in walks)
    if spanned and options.sigma_min:
        found["Schedule min sigma"] = _number(options.sigma_min)
    if spanned and options.sigma_max:
        found["Schedule max sigma"] = _number(options.sigma_max)
    if options.rho and any(OWN_RHO[label] != options.rho for label in labels & OWN_RHO.keys()):
        found["Schedule rho"] = _number(options.rho)
    if BETA in labels:
        found["Beta schedule alpha"] = _number(options.beta_alpha)
        found["Beta schedule beta"] = _number(options.beta_beta)
    if options.full_noise and leveled and not request.start:
        found["SGM noise multiplier"] = "True"
    if request.noise.extra and (request.start or request.second_pass):
        found["Extra noise"] = _number(request.noise.extra)
    return found


def _sampler(request: GenerationRequest, facts: InfotextFacts) -> Pairs:
    options, found = request.sampling.options, Pairs()
    eta = request.sampling.eta
    if eta is not None and facts.walk.default_eta is not None and eta != facts.walk.default_eta:
        found[eta_key(facts.walk.default_eta)] = _number(eta)
    found |= _later_eta(request, facts, found)
    if any(walk.takes_churn for walk in facts.walks):
        for key, value in (("churn", options.s_churn), ("tmin", options.s_tmin), ("tmax", options.s_tmax)):
            if value:
                found[f"Sigma {key}"] = _number(value)
    if options.s_noise != 1 and any(walk.takes_noise_scale for walk in facts.walks):
        found["Sigma noise"] = _number(options.s_noise)
    return found


def eta_key(default_eta: float) -> str:
    """AUTOMATIC1111 has one eta for the samplers that add no noise by default and one for the ancestral ones."""
    return "Eta" if default_eta else "Eta DDIM"


def _later_eta(request: GenerationRequest, facts: InfotextFacts, written: Mapping[str, str]) -> Pairs:
    """The second pass's eta, where it is not what its sampler would take after what is ``written``."""
    second, default = request.second_pass, facts.second_walk.default_eta if facts.second_walk else None
    if second is None or second.eta is None or default is None:
        return Pairs()
    told = [float(value) for value in written.values()]
    if second.eta == (told[0] if told else default):
        return Pairs()
    key = eta_key(default) if not told and facts.walk.default_eta is None else "Hires eta"
    return {key: _number(second.eta)}


def _guidance(request: GenerationRequest, facts: InfotextFacts) -> Pairs:
    guidance, found = request.sampling.guidance, Pairs()
    if guidance.skip_early:
        found["Skip Early CFG"] = _number(guidance.skip_early)
    if guidance.min_sigma:
        found["NGMS"] = _number(guidance.min_sigma)
        if guidance.min_sigma_all:
            found["NGMS all steps"] = "True"
    if guidance.pad_v0 and facts.padded:
        found["Pad conds v0"] = "True"
    elif guidance.pad and facts.padded:
        found["Pad conds"] = "True"
    return found


def _refiner(request: GenerationRequest, facts: InfotextFacts) -> Pairs:
    refiner: Refiner | None = request.refiner
    if refiner is None:
        return Pairs()
    found = Pairs()
    if refiner.by_steps:
        found["Refiner switch by sampling steps"] = "True"
    if request.second_pass and refiner.passes is not RefinerPasses.SECOND:
        found["Hires refiner"] = refiner.passes.value
    found["Refiner"] = facts.titles.get(refiner.checkpoint, refiner.checkpoint)
    found["Refiner switch at"] = _number(refiner.switch_at)
    return found


def _own(request: GenerationRequest, facts: InfotextFacts) -> Pairs:
    """Pairs about what AUTOMATIC1111 does not have; the template's keys are those of its dynamic prompts extension."""
    found = Pairs()
    if request.template:
        found["Template"] = request.template.prompt
        if request.template.negative_prompt:
            found["Negative Template"] = request.template.negative_prompt
    return found


def title(name: str, sha256: str) -> str:
    """What stands for a checkpoint beside the first: ``name [0123456789]``, without folders."""
    return f"{name.rpartition('/')[2]} [{sha256[:SHORT_HASH]}]"


def _number(value: float) -> str:
    """A number as AUTOMATIC1111 writes it: always with a point."""
    return str(float(value))


def _short(value: float) -> str:
    """A number without a needless point."""
    return str(int(value)) if float(value).is_integer() else str(float(value))
