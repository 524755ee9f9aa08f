"""The entries of the page's lists, from the registries and the models folder, and names looked up in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from webui.diffusion.schedules import AUTOMATIC
from webui.errors import WebUIError
from webui.request import AUTOMATIC_VAE, BUILT_IN_VAE
from webui.ui.fields import SAME_CHECKPOINT, SAME_SAMPLER, SAME_SCHEDULE

if TYPE_CHECKING:
    from webui.engine.engine import Engine


def checkpoints(engine: Engine) -> list[tuple[str, str]]:
    """Title and name of each checkpoint, the default one first."""
    return [(entry.title, entry.name) for entry in engine.checkpoints()]


def samplers(engine: Engine) -> list[str]:
    """The samplers' names."""
    return [sampler.name for sampler in engine.samplers()]


def schedules(engine: Engine) -> list[str]:
    """The schedules' names, "Automatic" first."""
    return [AUTOMATIC, *(schedule.name for schedule in engine.schedules() if schedule.name != AUTOMATIC)]


def vaes(engine: Engine) -> list[str]:
    """Automatic, None, then the VAE files."""
    return [AUTOMATIC_VAE, BUILT_IN_VAE, *(entry.name for entry in engine.library.entries("vae"))]


def styles(engine: Engine) -> list[str]:
    """The names of the styles; none when their file cannot be read."""
    try:
        return list(engine.styles().by_name)
    except WebUIError:
        return []


LISTS: Mapping[str, Callable[[Engine], Sequence[Any]]] = {
    "checkpoint": checkpoints,
    "vae": vaes,
    "styles": styles,
    "sampler": samplers,
    "schedule": schedules,
    "hr_upscaler": lambda engine: [one.name for one in engine.upscalers()],
    "img2img_upscaler": lambda engine: [one.name for one in engine.upscalers() if not one.is_latent],
    "hr_checkpoint": lambda engine: [SAME_CHECKPOINT, *checkpoints(engine)],
    "hr_sampler": lambda engine: [SAME_SAMPLER, *samplers(engine)],
    "hr_schedule": lambda engine: [SAME_SCHEDULE, *schedules(engine)],
    "refiner_checkpoint": checkpoints,
    "face_model": lambda engine: [restorer.name for restorer in engine.face_restorers()],
}
"""The entries of each list by field."""
FOLDER_LISTS = ("vae", "styles", "hr_upscaler", "img2img_upscaler", "hr_checkpoint", "refiner_checkpoint")
"""Those that change when a file is put into a folder; ``checkpoint`` apart, which more hangs on."""

_WORDS = {
    "sampler": "sampler",
    "schedule": "schedule type",
    "checkpoint": "checkpoint",
    "vae": "VAE",
    "hr_upscaler": "upscaler",
    "hr_sampler": "hires sampler",
    "hr_schedule": "hires schedule type",
    "hr_checkpoint": "hires checkpoint",
    "refiner_checkpoint": "refiner",
    "img2img_upscaler": "upscaler",
    "face_model": "face restorer",
}


def known(engine: Engine, field: str, name: str) -> str | None:
    """The name as this program has it, by name, alias or hash; None when it is not here."""
    if field.endswith("checkpoint"):
        return SAME_CHECKPOINT if name == SAME_CHECKPOINT else _file(engine, name, "checkpoint")
    if field == "vae":
        return name if name in (AUTOMATIC_VAE, BUILT_IN_VAE) else _file(engine, name, "vae")
    entries = LISTS[field](engine) if field in LISTS else []
    if name in entries:
        return name
    kind = field.removeprefix("hr_").removeprefix("img2img_")
    records: Mapping[str, Callable[[], Iterable[Any]]] = {
        "sampler": engine.samplers,
        "schedule": engine.schedules,
        "upscaler": engine.upscalers,
        "face_model": engine.face_restorers,
    }
    wanted = name.casefold()
    found = records[kind]() if kind in records else ()
    return next((one.name for one in found if wanted in {alias.casefold() for alias in _names(one)}), None)


def missing(engine: Engine, values: Mapping[str, Any]) -> list[str]:
    """Words for each file or method that the field values name and that is not here."""
    return [
        f'the {word} "{values[field]}"'
        for field, word in _WORDS.items()
        if values.get(field) and known(engine, field, values[field]) is None
    ]


def with_known_names(engine: Engine, values: Mapping[str, Any]) -> dict[str, Any]:
    """The field values with names as they are here; what is not here is left out, so that the page keeps its own."""
    kept = dict(values)
    for field in _WORDS:
        if field in kept and (name := known(engine, field, kept[field]) if kept[field] else None) is not None:
            kept[field] = name
        else:
            kept.pop(field, None)
    return kept


def _names(record: Any) -> tuple[str, ...]:
    return (record.name, *getattr(record, "aliases", ()))


def _file(engine: Engine, name: str, kind: str) -> str | None:
    try:
        found: str = engine.library.find(name, kind).name
    except WebUIError:
        return None
    return found
