"""Answers every "default" of a request from the registries and the models folder.  Torch-free, so that a request with
an unknown name is refused when it is made, not when its turn comes.
"""

from __future__ import annotations

from dataclasses import replace

from webui.checkpoints.library import Library
from webui.diffusion.schedules import AUTOMATIC, Schedule, resolve_schedule, split_sampler_name
from webui.errors import RequestError, unknown_name
from webui.metadata import infotext
from webui.metadata.infotext import Infotext, ReadBack
from webui.plugins.manager import Plugins
from webui.prompt.extra_networks import extract
from webui.prompt.styles import Styles
from webui.request import BUILT_IN_VAE, GenerationRequest, SecondPass
from webui.samplers import Sampler, find_sampler
from webui.upscalers import find_upscaler


def resolve(request: GenerationRequest, plugins: Plugins, library: Library) -> GenerationRequest:
    """The request with nothing random or "default" left.  Raises RequestError for names that are not known here."""
    sampler, schedule = _sampler(request.sampling.sampler, request.sampling.schedule, plugins)
    for use in request.modules:
        if use.name not in plugins.conditioning_modules:
            raise unknown_name("conditioning module", use.name, plugins.conditioning_modules)
    for prompt in (request.prompt, request.second_pass.prompt if request.second_pass else ""):
        extracted = extract(prompt)
        for kind, tags in (("lora", extracted.loras), ("hypernet", extracted.hypernets)):
            for tag in tags:
                library.find(tag.name, kind)
    checkpoint = library.find(request.checkpoint)
    vae = library.vae_for(checkpoint, request.vae)
    request = replace(
        request,
        second_pass=_second_pass(request, plugins, library),
        refiner=replace(request.refiner, checkpoint=library.find(request.refiner.checkpoint).name)
        if request.refiner
        else None,
    )
    eta = request.sampling.eta
    return request.resolved(
        checkpoint=checkpoint.name,
        vae=vae.name if vae else BUILT_IN_VAE,
        sampler=sampler.name,
        schedule=schedule.name,
        eta=(sampler.default_eta or 0.0) if eta is None else eta,
    )


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
        upscaler=find_upscaler(second.upscaler, plugins.upscalers.values()).name,
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


def read_back(parsed: Infotext, plugins: Plugins) -> ReadBack:
    """What a text that was read says, as a request; plugins may add to it."""

    def split_sampler(text: str) -> tuple[str, str]:
        """An old combined sampler name in two; one that is not known here stays whole, for the page to show."""
        try:
            return split_sampler_name(text, plugins.samplers.values(), plugins.schedules.values())
        except RequestError:
            return text, AUTOMATIC

    back = infotext.to_request(parsed, GenerationRequest(), split_sampler=split_sampler)
    plain = plugins.amend(
        "read_infotext", "request", back.request.to_dict(), GenerationRequest.from_dict, fields=dict(parsed.fields)
    )
    return replace(back, request=GenerationRequest.from_dict(plain))


def schedule_label(request: GenerationRequest, plugins: Plugins) -> str:
    """What AUTOMATIC1111 writes as "Schedule type": a sampler without a default of its own stays "Automatic"."""
    sampler = plugins.samplers[request.sampling.sampler]
    plain = sampler.default_schedule is None and request.sampling.schedule == "Uniform"
    return "Automatic" if plain else request.sampling.schedule
