"""The HTML of the modules' panels on txt2img and img2img, made from their options records.  All words are escaped here.

A panel is closed and empty at first: ``modules.js`` fills its units from the template when it is opened or has a value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from webui.conditioning import ConditioningModule
from webui.conditioning.modules import label_of, units_of
from webui.option_boxes import Box, Kind, boxes
from webui.ui.assets import read_asset
from webui.ui.scripts import FEW, rows

Listed = Callable[[Box], Sequence[Any] | None]
"""The entries of a box that a folder or a registry fills; None for other boxes."""
NONE = "None"
"""What a list shows for an empty text."""


def panels(tab: str, modules: Sequence[ConditioningModule], listed: Listed) -> str:
    """The panels of a tab, one below the other.  Safe inside a template of gradio: no brace is left."""
    html = "".join(_panel(tab, module, listed) for module in modules)
    html = f'<div class="modules" data-tab="{tab}">{html}</div>'
    return html.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;")


def element(tab: str, module: str) -> str:
    """The element id of a module's panel."""
    name = "".join(one if one.isalnum() else "_" for one in module.casefold())
    return f"{tab}_module_{name}"


def _panel(tab: str, module: ConditioningModule, listed: Listed) -> str:
    units = units_of(module)
    buttons = "".join(
        f'<button type="button" role="tab" data-unit="{number}" aria-selected="{"false" if number else "true"}">'
        f"Unit {number}</button>"
        for number in range(units)
    )
    bar = f'<div class="mod-tabs" role="tablist" aria-label="Units">{buttons}</div>' if units > 1 else ""
    return (
        f'<details class="mod" id="{element(tab, module.name)}" data-module="{escape(module.name)}" '
        f'data-units="{units}"><summary>{escape(label_of(module))}<output class="mod-count"></output></summary>'
        f'{bar}<div class="mod-units"></div><template>{_unit(tab, module, listed)}</template></details>'
    )


def _unit(tab: str, module: ConditioningModule, listed: Listed) -> str:
    shown = boxes(module.options)
    drawn_on = {box.of: box.name for box in shown if box.kind is Kind.MASK and box.of}
    shown = [box for box in shown if box.name not in drawn_on.values()]
    fields = {box.name: _field(box, tab, listed, drawn_on.get(box.name, "")) for box in shown}
    html = '<label class="mod-check mod-enable"><input type="checkbox"><span>Enable</span></label>'
    for row in _rows(shown):
        html += f'<div class="mod-row">{"".join(fields[box.name] for box in row)}</div>'
        if any(map(_asks_for_control, row)) and _PREVIEW not in html:
            html += _PREVIEW
    is_seen = _PREVIEW in html or any(box.kind is Kind.PAINT for box in shown)
    return html + (_PREVIEW if hasattr(module, "preview") and not is_seen else "")


def _rows(shown: Sequence[Box]) -> list[list[Box]]:
    """The boxes by the row in which they stand; flags that follow each other share one."""
    found: list[list[Box]] = []
    for row in rows(shown):
        if found and all(isinstance(box.default, bool) for box in (*found[-1], *row)):
            found[-1] += row
        else:
            found.append(row)
    return found


def _asks_for_control(box: Box) -> bool:
    return box.kind is Kind.PREPROCESSOR and bool(box.of)


_PREVIEW = (
    '<div class="mod-preview"><button type="button" data-do="preview">Preview</button>'
    '<p class="mod-error" role="alert"></p><img alt="Control picture" hidden></div>'
)


def _field(box: Box, tab: str, listed: Listed, mask: str) -> str:
    """A field; ``holds`` tells the script how its value is read, ``mask`` the option that is drawn on a picture."""
    holds, control = _control(box, tab, listed, mask)
    about = f'data-field="{escape(box.name)}" data-holds="{holds}" data-default="{_json(box.default)}"'
    about += f' data-mask="{escape(mask)}"' if mask else ""
    about += f' data-when="{_json(list(box.when))}"' if box.when else ""
    if holds == "flag":
        words = f"<span>{escape(box.label)}{_hint(box)}</span>"
        return f'<label class="mod-check" {about}>{control}{words}</label>'
    if holds in ("picture", "paint", "radio"):
        return f'<div class="mod-field" {about}>{control}{_hint(box)}</div>'
    hint = "" if holds == "text" else _hint(box)
    return f'<label class="mod-field" {about}><span>{escape(box.label)}</span>{control}{hint}</label>'


def _control(box: Box, tab: str, listed: Listed, mask: str) -> tuple[str, str]:
    if box.kind is Kind.PAINT:
        return "paint", read_asset("paint.html", label=escape(box.label))
    if box.is_picture:
        paint = "paintable" if mask else ""
        canvas = read_asset("canvas.html", label=escape(box.label), paint="yes" if mask else "no")
        return "picture", f'<div class="picture-canvas {paint}">{canvas}</div>'
    if isinstance(box.default, bool):
        return "flag", '<input type="checkbox">'
    choices = box.choices_for(tab == "img2img")
    if choices is not None and len(choices) <= FEW:
        return "radio", _radio(box, choices)
    if choices is None and (entries := listed(box)) is not None:
        is_listed = box.kind in (Kind.MODEL, Kind.PREPROCESSOR)
        return "choice", _select(entries, "data-listed" if is_listed else "")
    if choices is not None:
        return "choice", _select(choices)
    if isinstance(box.default, str):
        hint = f' placeholder="{escape(box.hint)}"' if box.hint else ""
        lines = f'<textarea rows="{box.lines}"{hint}></textarea>'
        return "text", lines if box.lines > 1 else f'<input type="text"{hint}>'
    return "number", _number(box)


def _number(box: Box) -> str:
    step = box.step or (1 if isinstance(box.default, int) else "any")
    limits = {"min": box.low, "max": box.high, "step": step}
    about = " ".join(f'{name}="{value}"' for name, value in limits.items() if value is not None)
    number = f'<input type="number" {about}>'
    if box.low is None or box.high is None:
        return number
    return f'<span class="mod-slider"><input type="range" {about} aria-label="{escape(box.label)}">{number}</span>'


def _radio(box: Box, choices: Sequence[Any]) -> str:
    marks = "".join(
        f'<label class="mod-choice"><input type="radio" value="{_json(one)}"><span>{escape(str(one))}</span></label>'
        for one in choices
    )
    return f'<fieldset><legend>{escape(box.label)}</legend><div class="mod-choices">{marks}</div></fieldset>'


def _select(entries: Sequence[Any], about: str = "") -> str:
    pairs = [one if isinstance(one, tuple) else (str(one) or NONE, one) for one in entries]
    marks = "".join(f'<option value="{_json(value)}">{escape(str(words))}</option>' for words, value in pairs)
    return f"<select {about}>{marks}</select>"


def _hint(box: Box) -> str:
    return f"<small>{escape(box.hint)}</small>" if box.hint else ""


def _json(value: Any) -> str:
    return escape(json.dumps(value))


def listed_by(entries: Callable[[Box], Sequence[Any] | None], lists: Mapping[str, Sequence[Any]]) -> Listed:
    """The entries of a box: of models and preprocessors by ``entries``, of the page's own ``lists`` by name."""
    return lambda box: lists[box.entries] if box.entries else entries(box)
