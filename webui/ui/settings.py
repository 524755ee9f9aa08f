"""The Settings tab, made from the options record of each section: boxes, Apply and Reset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from webui.engine.options import Options
from webui.errors import RequestError
from webui.option_boxes import Box, boxes
from webui.plugins.own_settings import SettingsSection, key_of
from webui.ui.context import PageContext
from webui.ui.notices import EVENT, connect, sentence

FEW = 3
"""So many choices stand side by side; more are a list."""


def build_settings(context: PageContext) -> None:
    """A panel for each section; what it shows is read anew when the tab is opened."""
    options = context.engine.options
    if not options.sections:
        gr.HTML("<p>Nothing can be set here yet; extensions may add settings.</p>")
        return
    filled: list[Any] = []
    for section in options.sections:
        filled += _section(context, section)

    def values() -> list[Any]:
        snapshot = options.snapshot()
        found = [snapshot[key_of(section, box.name)] for section in options.sections for box in boxes(section.options)]
        return found if len(found) != 1 else found[0]

    if filled:
        context.tabs.select(values, None, filled, **EVENT)


def _section(context: PageContext, section: SettingsSection) -> list[Any]:
    """The components of a section's fields, in their order."""
    options = context.engine.options
    shown = boxes(section.options)
    now = options.settings_of(section.name)
    card = gr.Column(elem_classes=["settings"])
    with card, gr.Accordion(section.label, open=True, elem_id=f"settings_{section.name}"):
        with gr.Column(min_width=200):
            fields = [_component(section, box, getattr(now, box.name)) for box in shown]
        with gr.Row():
            apply = gr.Button(
                "Apply", variant="primary", size="sm", elem_id=f"settings_{section.name}_apply", min_width=120, scale=0
            )
            reset = gr.Button("Reset", size="sm", elem_id=f"settings_{section.name}_reset", min_width=120, scale=0)
    outputs = list(fields)
    connect(apply.click, _applier(options, section, shown), fields, outputs, context.notice)
    connect(reset.click, _resetter(options, section, shown), None, outputs, context.notice)
    return outputs


def _applier(options: Options, section: SettingsSection, shown: Sequence[Box]) -> Callable[..., list[Any]]:
    def apply(*values: Any) -> list[Any]:
        given = {key_of(section, box.name): plain(box, value) for box, value in zip(shown, values, strict=True)}
        options.change(given)
        return [*_values(options, section, shown), sentence(f"{section.label}: saved.", good=True)]

    return apply


def _resetter(options: Options, section: SettingsSection, shown: Sequence[Box]) -> Callable[[], list[Any]]:
    def reset() -> list[Any]:
        options.reset(section.name)
        return [*_values(options, section, shown), sentence(f"{section.label}: as it was at first.", good=True)]

    return reset


def _values(options: Options, section: SettingsSection, shown: Sequence[Box]) -> list[Any]:
    record = options.settings_of(section.name)
    return [getattr(record, box.name) for box in shown]


def _component(section: SettingsSection, box: Box, value: Any) -> Any:
    common: Mapping[str, Any] = {
        "value": value,
        "label": box.label,
        "info": box.hint or None,
        "interactive": True,
        "elem_id": f"setting_{key_of(section, box.name)}",
    }
    choices = box.choices_for(False)
    if isinstance(box.default, bool):
        return gr.Checkbox(**common)
    if choices is not None:
        return (gr.Radio if len(choices) <= FEW else gr.Dropdown)(choices, **common)
    if isinstance(box.default, str):
        return gr.Textbox(lines=box.lines, max_lines=max(box.lines, 1), **common)
    if box.low is not None and box.high is not None and box.step is not None:
        return gr.Slider(box.low, box.high, step=box.step, buttons=[], **common)
    return gr.Number(precision=0 if isinstance(box.default, int) else None, **common)


def plain(box: Box, value: Any) -> Any:
    """The setting's value for a widget's: whole numbers come from the browser as any number.  Raises RequestError."""
    if isinstance(box.default, bool):
        return bool(value)
    if isinstance(box.default, str):
        return str(value or "")
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"{box.label} is empty; type a number.")
    return int(value) if isinstance(box.default, int) and value == int(value) else value
