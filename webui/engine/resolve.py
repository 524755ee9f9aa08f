"""Answers every "default" of a request from the registries and the models folder.  Torch-free, so that a request with
an unknown name is refused when it is made, not when its turn comes.
"""

from __future__ import annotations

from dataclasses import replace

from webui.checkpoints.library import Library
from webui.diffusion.schedules import AUTOMATIC, resolve_schedule, split_sampler_name
from webui.errors import RequestError, unknown_name
from webui.metadata import infotext
from webui.metadata.infotext import Infotext, ReadBack
from webui.plugins.manager import Plugins
from webui.prompt.extra_networks import extract
from webui.request import AUTOMATIC_VAE, BUILT_IN_VAE, GenerationRequest
from webui.samplers import find_sampler


def resolve(request: GenerationRequest, plugins: Plugins, library: Library) -> GenerationRequest:
    """The request with nothing random or "default" left.  Raises RequestError for names that are not known here."""
    samplers, schedules = list(plugins.samplers.values()), list(plugins.schedules.values())
    name, split_schedule = request.sampling.sampler, request.sampling.schedule
    if name not in plugins.samplers:
        name, found = split_sampler_name(name, samplers, schedules)
        split_schedule = found if split_schedule == "Automatic" else split_schedule
    sampler = find_sampler(name, samplers)
    schedule = resolve_schedule(sampler, split_schedule, schedules)
    for use in request.modules:
        if use.name not in plugins.conditioning_modules:
            raise unknown_name("conditioning module", use.name, plugins.conditioning_modules)
    for tag in extract(request.prompt).loras:
        library.find(tag.name, "lora")
    eta = request.sampling.eta
    return request.resolved(
        checkpoint=library.find(request.checkpoint).name,
        vae=_vae(request.vae, library),
        sampler=sampler.name,
        schedule=schedule.name,
        eta=(sampler.default_eta or 0.0) if eta is None else eta,
    )


def _vae(wanted: str, library: Library) -> str:
    if wanted in (AUTOMATIC_VAE, BUILT_IN_VAE):
        return BUILT_IN_VAE
    return library.find(wanted, "vae").name


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
