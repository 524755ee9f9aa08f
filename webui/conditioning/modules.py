"""What every conditioning module has beside ``prepare``, and what stands in for what it leaves out.

Called wherever a module's options are asked for or shown: engine, metadata, page, API, command line.  No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_type_hints

from webui.checkpoints.library import FOLDERS
from webui.conditioning import ConditioningModule
from webui.errors import RequestError, unknown_name
from webui.option_boxes import Box, Kind, all_boxes, checked, checked_value, problem
from webui.records import plain

DEFAULT_ORDER = 100
MAX_UNITS = 16
OPTIONAL = ("write_infotext", "read_infotext", "always_on", "preview", "palette")


def label_of(module: ConditioningModule) -> str:
    """What people read."""
    return str(getattr(module, "label", module.name))


def units_of(module: ConditioningModule) -> int:
    """How many uses of it a request may have at once."""
    units: int = getattr(module, "units", 1)
    return units


def in_order(modules: Iterable[ConditioningModule]) -> list[ConditioningModule]:
    """The modules as the page shows them: by ``order``, those without one last; else as they were registered."""
    return sorted(modules, key=lambda module: getattr(module, "order", DEFAULT_ORDER))


def options_of(module: ConditioningModule, given: Mapping[str, Any]) -> Any:
    """The options record with these values.  Raises RequestError in one sentence (``option_boxes.checked``)."""
    return checked(module.options, given, module.name)


def full_options(module: ConditioningModule, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option by name with its plain value, those left out as they are by default.  Raises RequestError."""
    values: dict[str, Any] = plain(options_of(module, given))
    return values


def checked_option(module: ConditioningModule, name: str, value: Any) -> tuple[Box, Any]:
    """The box of an option and its plain value.  Raises RequestError for an unknown option, or what does not fit."""
    found = {box.name: box for box in all_boxes(module.options)}
    if name not in found:
        raise unknown_name(f"option of {module.name}", name, found)
    kind = get_type_hints(module.options)[name]
    return found[name], plain(checked_value(found[name], kind, value, module.name))


def problem_of(module: Any) -> str | None:
    """What is wrong with a module as it is registered, None when nothing is."""
    if told := problem(module.options, tuple(FOLDERS)):
        return told
    units = units_of(module)
    if isinstance(units, bool) or not isinstance(units, int) or not 1 <= units <= MAX_UNITS:
        return f"its units are {units!r}; it must be a whole number from 1 to {MAX_UNITS}"
    lacking = [name for name in OPTIONAL if hasattr(module, name) and not callable(getattr(module, name))]
    if lacking:
        return f"its {', '.join(lacking)} cannot be called"
    if hasattr(module, "write_infotext") != hasattr(module, "read_infotext"):
        return "it has only one of write_infotext and read_infotext"
    if not hasattr(module, "palette") and any(box.kind is Kind.PAINT for box in all_boxes(module.options)):
        return "it has an option to be painted and no palette"
    return None


def check_units(modules: Mapping[str, ConditioningModule], used: Sequence[str]) -> None:
    """Refuse more uses of a module than it has units.  Raises RequestError."""
    for name in dict.fromkeys(used):
        units = units_of(modules[name])
        if used.count(name) > units:
            times = "once" if units == 1 else f"{units} times"
            raise RequestError(f"{name} can be used {times} in a request; here it is used {used.count(name)} times.")
