"""Field values out of pictures and texts: what a person pastes, drops or sends comes back into the form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webui.conditioning.modules import label_of
from webui.diffusion.schedules import AUTOMATIC, resolve_schedule
from webui.engine.extras import is_extras
from webui.engine.module_options import resolved_option
from webui.errors import WebUIError
from webui.metadata.files import read_picture_texts
from webui.metadata.recipe import Recipe, request_of_one
from webui.option_boxes import all_boxes
from webui.request import AUTOMATIC_VAE, BUILT_IN_VAE, GenerationRequest
from webui.ui.fields import SAME_SAMPLER, SAME_SCHEDULE, TOP, fields_of
from webui.ui.form import homeless, stated_values, values_from_request
from webui.ui.lists import missing, with_known_names

if TYPE_CHECKING:
    from webui.conditioning import ConditioningModule
    from webui.engine.engine import Engine

SHOWN_CHARACTERS = 40
SHOWN_PAIRS = 6
"""So many pairs without a place here are named."""


@dataclass(frozen=True)
class Found:
    """The field values that a text or file states, and words for what of it has no place in the form."""

    values: Mapping[str, Any]
    homeless: tuple[str, ...] = ()


def from_text(engine: Engine, text: str, tab: str) -> Found:
    """What a ``parameters`` text states."""
    back = engine.read_parameters(text)
    values = stated_values(back, back.items)
    return Found(_unstyled(engine, values), (*back.unmapped, *homeless(back.request, tab)))


def from_picture(engine: Engine, data: bytes, tab: str) -> Found:
    """What a picture's file states: its recipe when it has one, else its text.  Raises MetadataError when neither.

    ``image`` and ``mask`` are there when its recipe names them; a text names no pictures.
    """
    texts = read_picture_texts(data)
    if "recipe" in texts and not is_extras(texts["recipe"]):
        return from_request(engine, request_of_one(Recipe.from_json(texts["recipe"])), tab)
    back = engine.read_infotext(data)
    values = stated_values(back, back.items)
    return Found(_unstyled(engine, values), (*back.unmapped, *homeless(back.request, tab)))


def from_request(engine: Engine, request: GenerationRequest, tab: str) -> Found:
    """What a recorded request states, "Automatic" again where that means the same."""
    values = _as_chosen(engine, request)
    values = {name: value for name, value in values.items() if name not in ("batch_count", "batch_size")}
    return Found(_unstyled(engine, values), tuple(homeless(request, tab)))


def fitting(engine: Engine, found: Found, tab: str) -> tuple[dict[str, Any], str]:
    """The values that the tab has fields for, by the names that are known here, and a sentence about the rest ("").

    A refiner or face restorer that is not here is switched off.
    """
    own = {*TOP, *fields_of(tab), "image", "mask"}
    values = {name: value for name, value in found.values.items() if name in own}
    for switch, needed in (("enable_hr", "hr_"), ("enable_refiner", "refiner_"), ("restore_faces", "face_")):
        if not values.get(switch):  # what is off names nothing that could be missing
            values = {name: value for name, value in values.items() if not (name.startswith(needed) and _named(name))}
    absent = missing(engine, values)
    values = with_known_names(engine, values)
    lost: list[str] = []
    if "modules" in values:
        values["modules"], lost = fitting_modules(engine, values["modules"])
    for switch, needed in (("enable_refiner", "refiner_checkpoint"), ("restore_faces", "face_model")):
        if values.get(switch) and needed not in values:
            values[switch] = False
    words = [f"Not here, and left as it was: {', '.join(absent)}."] if absent else []
    words += [f"Not here, and left out: {', '.join(lost)}."] if lost else []
    if found.homeless:
        more = ", …" if len(found.homeless) > SHOWN_PAIRS else ""
        words.append(f"Without a place here: {', '.join(found.homeless[:SHOWN_PAIRS])}{more}.")
    return values, " ".join(words)


def fitting_modules(engine: Engine, uses: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The uses of modules that are known here, and words for what of the others is not.

    What names a file, a preprocessor or a picture that is not here is as by default; options of another version of the
    module are left out.
    """
    found: list[dict[str, Any]] = []
    lost: list[str] = []
    for use in uses:
        module = engine.plugins.conditioning_modules.get(use["name"])
        if module is None:
            lost.append(f"the module {use['name']}")
            continue
        options, words = _fitting_options(engine, module, use["options"])
        found.append({"name": module.name, "options": options})
        lost += words
    return found, lost


def _fitting_options(
    engine: Engine, module: ConditioningModule, options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    kept: dict[str, Any] = {}
    lost = []
    named = {box.name: box for box in all_boxes(module.options)}
    for name, value in options.items():
        try:
            kept[name] = resolved_option(module, name, value, engine.plugins, engine.library)
            if named[name].is_picture and value:
                engine.input_path(value)
        except WebUIError:
            kept.pop(name, None)
            label = named[name].label if name in named else name
            lost.append(f"{label_of(module)}: {label} {_short(value)}")
    return kept, lost


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _named(field: str) -> bool:
    """Whether the field names a file or a method."""
    return field.endswith(("checkpoint", "upscaler", "sampler", "schedule", "model"))


def _as_chosen(engine: Engine, request: GenerationRequest) -> dict[str, Any]:
    """The values of a resolved request as a person would have chosen them: empty or the same where that means it."""
    values = values_from_request(request.to_dict())
    sampling, second = request.sampling, request.second_pass
    sampler = next((one for one in engine.samplers() if one.name == sampling.sampler), None)
    if sampler is not None and sampling.eta == (sampler.default_eta or 0.0):
        values["eta"] = ""
    with suppress(WebUIError):  # the schedule that belongs to the sampler may be gone
        if sampler is not None and resolve_schedule(sampler, AUTOMATIC, engine.schedules()).name == sampling.schedule:
            values["schedule"] = AUTOMATIC
    if second is not None:
        if second.eta == sampling.eta:
            values["hr_eta"] = ""
        if second.sampler == sampling.sampler:
            values["hr_sampler"] = SAME_SAMPLER
            if second.schedule == sampling.schedule:
                values["hr_schedule"] = SAME_SCHEDULE
    with suppress(WebUIError):  # a checkpoint that is not here has no VAE of its own here
        belonging = engine.library.vae_for(engine.library.find(request.checkpoint), AUTOMATIC_VAE)
        if request.vae == (belonging.name if belonging else BUILT_IN_VAE):
            values["vae"] = AUTOMATIC_VAE
    return values


def _unstyled(engine: Engine, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with the styles that their prompts carry taken out of them and chosen instead."""
    try:
        plain = engine.styles().extract(str(values.get("prompt", "")), str(values.get("negative_prompt", "")))
    except WebUIError:  # the editor of the styles says what is wrong with their file
        return dict(values)
    if not plain.names:
        return dict(values)
    found = {"prompt": plain.prompt, "negative_prompt": plain.negative_prompt, "styles": list(plain.names)}
    return {**values, **found}
