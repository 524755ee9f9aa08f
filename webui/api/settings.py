"""The routes of ``/api/v1/settings``: what plugins let a person set, section by section."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body

from webui.engine.engine import Engine
from webui.errors import RequestError
from webui.option_boxes import all_boxes, schema
from webui.plugins.own_settings import SettingsSection, key_of, plain_fields


def build_router(engine: Engine) -> APIRouter:
    """Every route, bound to one engine."""
    router = APIRouter(prefix="/api/v1/settings")
    options = engine.options

    def told(section: SettingsSection) -> dict[str, Any]:
        return {
            "name": section.name,
            "label": section.label,
            "options": schema(section.options),
            "values": plain_fields(options.settings_of(section.name), all_boxes(section.options)),
            "guarded": list(section.guarded),
        }

    @router.get("")
    def sections() -> list[dict[str, Any]]:
        """The sections: a schema of the ``options``, their ``values``; ``guarded`` ones change on the page alone."""
        return [told(section) for section in options.sections]

    @router.patch("/{name}")
    def change(name: str, changes: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        """Change settings of a section by field; all are kept, or none."""
        section = options.section(name)
        known = {box.name for box in all_boxes(section.options)}
        for field in changes:
            if field not in known:
                raise RequestError(f'{section.label} has no setting "{field[:80]}"; there are {", ".join(known)}.')
            if field in section.guarded:
                raise RequestError(f'"{field}" of {section.label} is changed on the page alone.')
        options.change({key_of(section, field): value for field, value in changes.items()})
        return told(section)

    @router.delete("/{name}")
    def reset(name: str) -> dict[str, Any]:
        """Give a section its defaults again."""
        section = options.section(name)
        if section.guarded:
            raise RequestError(f"{section.label} has settings that are changed on the page alone; reset it there.")
        options.reset(name)
        return told(section)

    return router
