"""Answers every "default" of a request from the registries and the models folder.  Torch-free, so that a request with
an unknown name is refused when it is made, not when its turn comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from webui.checkpoints.library import Library
from webui.conditioning.extra_networks import Meant
from webui.diffusion.schedules import AUTOMATIC, Schedule, resolve_schedule, split_sampler_name
from webui.engine.module_options import resolved_modules
from webui.errors import RequestError
from webui.faces import find_restorer
from webui.metadata import module_texts
from webui.metadata.foreign import Told
from webui.metadata.reading import Known, ReadBack, to_request
from webui.metadata.writing import Walk
from webui.plugins.manager import Plugins
from webui.plugins.own_fields import registered_fields
from webui.prompt.comments import without_comments
from webui.prompt.dynamic import is_dynamic
from webui.prompt.extra_networks import NetworkTag, extract
from webui.prompt.styles import Styles
from webui.request import (
    BUILT_IN_VAE,
    FaceRestoration,
    GenerationRequest,
    ModuleUse,
    Sampling,
    SecondPass,
    StartImage,
)
from webui.samplers import Sampler, find_sampler
from webui.upscalers import Upscaler, find_upscaler
from webui.upscalers.files import all_upscalers


def resolve(request: GenerationRequest, plugins: Plugins, library: Library) -> GenerationRequest:
    """The request with nothing random or "default" left.  Raises RequestError for names that are not known here."""
    sampler, schedule = _sampler(request.sampling.sampler, request.sampling.schedule, plugins)
    for prompt in (request.prompt, request.second_pass.prompt if request.second_pass else ""):
        extracted = extract(without_comments(prompt))
        for tag in extracted.loras:
            if request.template is not None or not is_dynamic(tag.name):
                library.find(tag.name, "lora")
        _check_networks(extracted.tags, request, plugins, library)
    checkpoint = library.find(request.checkpoint)
    vae = library.vae_for(checkpoint, request.vae)
    request = replace(
        request,
        second_pass=_second_pass(request, plugins, library),
        start=_start(request, plugins, library),
        face_restoration=_face_restoration(request, plugins),
        refiner=replace(request.refiner, checkpoint=library.find(request.refiner.checkpoint).name)
        if request.refiner
        else None,
        modules=resolved_modules(request.modules, plugins, library),
    )
    eta = request.sampling.eta
    return request.resolved(
        checkpoint=checkpoint.name,
        vae=vae.name if vae else BUILT_IN_VAE,
        sampler=sampler.name,
        schedule=schedule.name,
        eta=(sampler.default_eta or 0.0) if eta is None else eta,
    )


def _check_networks(tags: Sequence[NetworkTag], request: GenerationRequest, plugins: Plugins, library: Library) -> None:
    """Refuse tags whose arguments do not fit or whose file is not there; those that hold choices wait until they are
    made."""
    settled = [tag for tag in dict.fromkeys(tags) if request.template is not None or not is_dynamic(tag.text)]
    for tag in plugins.extra_network_kinds.read(settled):
        if isinstance(tag, Meant) and tag.kind.folders:
            library.find(tag.name, tag.kind.name)


def _upscaler(name: str, plugins: Plugins, library: Library) -> Upscaler:
    return find_upscaler(name, all_upscalers(plugins.upscalers.values(), library.entries("upscaler"), None))


def _start(request: GenerationRequest, plugins: Plugins, library: Library) -> StartImage | None:
    """The start image with the full name of its upscaler."""
    if request.start is None:
        return None
    upscaler = _upscaler(request.start.upscaler, plugins, library)
    if upscaler.is_latent:
        raise RequestError(f'The upscaler "{upscaler.name}" enlarges latents; choose another one for a start image.')
    return replace(request.start, upscaler=upscaler.name)


def _face_restoration(request: GenerationRequest, plugins: Plugins) -> FaceRestoration | None:
    """The face restoration with its restorer's full name."""
    wanted = request.face_restoration
    return wanted and replace(wanted, model=find_restorer(wanted.model, plugins.face_restorers.values()).name)


def _sampler(name: str, schedule: str, plugins: Plugins) -> tuple[Sampler, Schedule]:
    """The sampler and schedule of these names; an old combined name ("DPM++ 2M Karras") may say both."""
    samplers, schedules = list(plugins.samplers.values()), list(plugins.schedules.values())
    if name not in plugins.samplers:
        name, found = split_sampler_name(name, samplers, schedules)
        schedule = found if schedule == AUTOMATIC else schedule
    sampler = find_sampler(name, samplers)
    return sampler, resolve_schedule(sampler, schedule, schedules)


def _second_pass(request: GenerationRequest, plugins: Plugins, library: Library) -> SecondPass | None:
    """The second pass with its own sampler, schedule and checkpoint by their full names, where it has any.

    A sampler of its own without a schedule takes the one it prefers, or the first pass's where that was chosen.
    """
    second = request.second_pass
    if second is None:
        return None
    chosen = second.schedule or request.sampling.schedule
    sampler, schedule = _sampler(second.sampler or request.sampling.sampler, chosen, plugins)
    etas = (second.eta, request.sampling.eta, sampler.default_eta, 0.0)
    return replace(
        second,
        eta=next(eta for eta in etas if eta is not None),
        upscaler=_upscaler(second.upscaler, plugins, library).name,
        sampler=sampler.name,
        schedule=schedule.name,
        checkpoint=library.find(second.checkpoint).name if second.checkpoint else None,
    )


def styled(request: GenerationRequest, styles: Styles) -> GenerationRequest:
    """The request with its styles put around its prompts, those of a second pass of its own too.

    Raises RequestError for a style that is not there.
    """
    prompt, negative_prompt = styles.apply(request.styles, request.prompt, request.negative_prompt)
    second = request.second_pass
    if second is not None:
        own, own_negative = styles.apply(request.styles, second.prompt, second.negative_prompt)
        second = replace(
            second,
            prompt=own if second.prompt else "",
            negative_prompt=own_negative if second.negative_prompt else "",
        )
    return replace(request, prompt=prompt, negative_prompt=negative_prompt, second_pass=second, styles=())


def uncommented(request: GenerationRequest) -> GenerationRequest:
    """The request without the comments in its prompts."""
    second = request.second_pass
    if second is not None:
        prompt, negative_prompt = without_comments(second.prompt), without_comments(second.negative_prompt)
        second = replace(second, prompt=prompt, negative_prompt=negative_prompt)
    prompt, negative_prompt = without_comments(request.prompt), without_comments(request.negative_prompt)
    return replace(request, prompt=prompt, negative_prompt=negative_prompt, second_pass=second)


def as_recorded(request: GenerationRequest, plugins: Plugins) -> GenerationRequest:
    """The request as a picture's recipe and text hold it: without the modules that only look on."""
    modules = plugins.conditioning_modules
    uses = tuple(use for use in request.modules if not getattr(modules.get(use.name), "observes", False))
    return replace(request, modules=uses)


def read_back(told: Told, plugins: Plugins, library: Library | None = None) -> ReadBack:
    """What was read of a file, as a request; plugins may add to it.

    With the ``library`` LoRAs that the text gives a hash are called by the names that they have there.
    """
    parsed = told.infotext

    def split_sampler(text: str) -> tuple[str, str]:
        """An old combined sampler name in two; one that is not known here stays whole, for the page to show."""
        try:
            return split_sampler_name(text, plugins.samplers.values(), plugins.schedules.values())
        except RequestError:
            return text, AUTOMATIC

    def default_schedule(name: str) -> str | None:
        """The schedule that "Automatic" means for a sampler; None for the uniform one, also for an unknown sampler."""
        return next((one.default_schedule for one in plugins.samplers.values() if name in one.names), None)

    def modules(fields: dict[str, str]) -> tuple[list[ModuleUse], list[str]]:
        return module_texts.read(fields, plugins.conditioning_modules, plugins.ask_module)

    known = Known(
        split_sampler=split_sampler,
        default_schedule=default_schedule,
        modules=modules,
        fields=registered_fields(plugins),
    )
    if library is not None:
        known = replace(known, lora_named=library.lora_named)
    back = to_request(parsed, GenerationRequest(), known)
    plain = plugins.amend(
        "read_infotext", "request", back.request.to_dict(), GenerationRequest.from_dict, fields=dict(parsed.fields)
    )
    return replace(
        back,
        request=GenerationRequest.from_dict(plain),
        unmapped=(*back.unmapped, *told.unmapped),
        program=told.program or back.program,
    )


_ALWAYS_DRAW = ("LCM", "Restart")
"""Samplers that add noise whatever their options say."""


def walks(request: GenerationRequest, plugins: Plugins) -> tuple[Walk, Walk | None]:
    """What a picture's text has to know about how a resolved request's passes walk; None without a second one."""
    second = request.second_pass
    if second is None:
        return _walk(request.sampling, plugins), None
    later = replace(
        request.sampling,
        sampler=second.sampler or request.sampling.sampler,
        schedule=second.schedule or request.sampling.schedule,
        eta=request.sampling.eta if second.eta is None else second.eta,
    )
    return _walk(request.sampling, plugins), _walk(later, plugins)


def _walk(sampling: Sampling, plugins: Plugins) -> Walk:
    sampler = plugins.samplers[sampling.sampler]
    on_timesteps = sampler.grid is not None
    takes_churn = sampler.tuned is not None and not on_timesteps
    stochastic = sampler.default_eta is not None and bool(sampling.eta)
    return Walk(
        label=_schedule_label(sampling, sampler),
        default_schedule=sampler.default_schedule,
        default_eta=sampler.default_eta,
        takes_churn=takes_churn,
        takes_noise_scale=sampler.scales_noise,
        on_timesteps=on_timesteps,
        draws_noise=not sampler.brownian
        and (stochastic or sampler.name in _ALWAYS_DRAW or (takes_churn and bool(sampling.options.s_churn))),
        discards_penultimate=sampler.discards_penultimate,
        spans_levels=sampler.ignores_schedule or sampler.plans_levels,
    )


def _schedule_label(sampling: Sampling, sampler: Sampler) -> str:
    """What AUTOMATIC1111 writes as "Schedule type": a sampler without a default of its own stays "Automatic"."""
    plain = sampler.default_schedule is None and sampling.schedule == "Uniform"
    return AUTOMATIC if plain else sampling.schedule
