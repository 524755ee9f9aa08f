"""``script_name`` and ``script_args``, and the lists of scripts in upstream's shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from webui.api.sdapi.always_on import IMG2IMG, SOFT_INPAINTING, TXT2IMG
from webui.api.sdapi.errors import UpstreamError
from webui.api.sdapi.models import Generation, StableDiffusionProcessingImg2Img
from webui.conditioning import ConditioningModule
from webui.conditioning.modules import label_of, units_of
from webui.engine.engine import Engine
from webui.errors import RequestError
from webui.request import GenerationRequest, ScriptUse
from webui.scripts import Argument, Script, find_script

UNIT = (0.0, 1.0, 0.01)


def selectable(engine: Engine) -> list[Script]:
    """The scripts that a request may name: those of the page's Script list."""
    return [script for script in engine.scripts() if script.listed]


def with_script(request: GenerationRequest, body: Generation, engine: Engine) -> GenerationRequest:
    """The request with the script that the body names."""
    if not body.script_name:
        return request
    try:
        script = find_script(body.script_name, selectable(engine))
    except RequestError as error:
        raise UpstreamError(422, f"Script '{body.script_name}' not found") from error
    options = script.options_from(body.script_args, isinstance(body, StableDiffusionProcessingImg2Img))
    return replace(request, script=ScriptUse(name=script.name, options=options))


def titles(engine: Engine) -> dict[str, list[str]]:
    """The scripts by lower-case title, those that a request can choose first."""
    chosen = sorted(script.name.lower() for script in selectable(engine))
    from_text = sorted(script.name.lower() for script in selectable(engine) if not script.from_start)
    modules = [module.name.lower() for module in engine.modules()]
    return {"txt2img": [*from_text, *TXT2IMG, *modules], "img2img": [*chosen, *IMG2IMG, *modules]}


def infos(engine: Engine) -> list[dict[str, Any]]:
    """Every script with its positional arguments."""
    rows = []
    for img2img in (False, True):
        known = sorted(selectable(engine), key=lambda one: one.name.lower())
        rows += [_info(script, img2img) for script in known if img2img or not script.from_start]
        for name in IMG2IMG if img2img else TXT2IMG:
            rows.append(_row(name, True, img2img, _always_on(name, engine)))
        rows += [_row(module.name.lower(), True, img2img, _units(module)) for module in engine.modules()]
    return rows


def _info(script: Script, img2img: bool) -> dict[str, Any]:
    return _row(script.name.lower(), False, img2img, script.arguments(img2img))


def _row(name: str, is_alwayson: bool, is_img2img: bool, arguments: Sequence[Argument]) -> dict[str, Any]:
    rows = [{**asdict(one), "choices": None if one.choices is None else list(one.choices)} for one in arguments]
    return {"name": name, "is_alwayson": is_alwayson, "is_img2img": is_img2img, "args": rows}


def _number(label: str, value: float, low: float, high: float, step: float) -> Argument:
    return Argument(label=label, value=value, minimum=low, maximum=high, step=step)


def _units(module: ConditioningModule) -> Sequence[Argument]:
    """A module's arguments: its units, each an object with options by name."""
    return [Argument(label=f"{label_of(module)} Unit {number}") for number in range(units_of(module))]


def _always_on(name: str, engine: Engine) -> Sequence[Argument]:
    """The arguments of an always-on script as upstream lists them."""
    if name == SOFT_INPAINTING:
        return (
            Argument(label="Soft inpainting", value=False),
            _number("Schedule bias", 1, 0, 8, 0.1),
            _number("Preservation strength", 0.5, 0, 8, 0.05),
            _number("Transition contrast boost", 4, 1, 32, 0.5),
            _number("Mask influence", 0, 0, 1, 0.05),
            _number("Difference threshold", 0.5, 0, 8, 0.25),
            _number("Difference contrast", 2, 0, 8, 0.25),
        )
    if name == "refiner":
        checkpoints = [one.title for one in engine.checkpoints()]
        return (
            Argument(label="Refiner", value=False),
            Argument(label="Checkpoint", value="", choices=checkpoints),
            _number("Switch at", 0.8, 0.01, 1.0, 0.01),
        )
    if name == "sampler":
        return (
            _number("Sampling steps", 20, 1, 150, 1),
            Argument(label="Sampling method", value="DPM++ 2M", choices=[one.name for one in engine.samplers()]),
            Argument(
                label="Schedule type",
                value="Automatic",
                choices=["Automatic", *(one.name for one in engine.schedules())],
            ),
        )
    if name == "seed":
        return (
            Argument(label="Seed", value=-1, step=1),
            Argument(label="Extra", value=False),
            Argument(label="Variation seed", value=-1, step=1),
            _number("Variation strength", 0.0, *UNIT),
            _number("Resize seed from width", 0, 0, 2048, 8),
            _number("Resize seed from height", 0, 0, 2048, 8),
        )
    return ()
