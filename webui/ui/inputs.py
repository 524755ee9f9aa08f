"""The widgets of a tab's fields, made from the table in ``fields``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from webui.ui.fields import SWITCHES, TABLE
from webui.ui.widgets.modules import ModulePanels

EMPTY_HINT = {
    "eta": "the sampler's own",
    "hr_cfg_scale": "as in the first pass",
    "hr_eta": "as in the first pass",
    "mask_blur_y": "the same",
}
"""What an empty box for a number says."""


class Inputs:
    """Makes the components of one tab; ``made`` holds them by the name of their field or switch.

    ``panels`` are what a switch opens: an accordion, or a column that is shown.  ``initial`` are the field values of a
    fresh page, ``choices`` the entries of the dropdowns that registries and folders fill, by field.  ``note`` is the
    line in the header of the hires fix.
    """

    def __init__(self, tab: str, initial: Mapping[str, Any], choices: Mapping[str, Sequence[Any]]) -> None:
        self.tab = tab
        self.initial = initial
        self.choices = choices
        self.made: dict[str, Any] = {}
        self.panels: dict[str, Any] = {}
        self.note: Any = None

    def element(self, name: str) -> str:
        """The element id of a field, with the tab before it unless it stands on top for both."""
        field = TABLE[name]
        suffix = field.element or name
        return suffix if field.tab == "top" else f"{self.tab}_{suffix}"

    def slider(self, name: str, **more: Any) -> Any:
        """A slider from ``low`` to ``high``."""
        field = TABLE[name]
        made = gr.Slider(field.low, field.high, step=field.step, buttons=[], **self._common(name, more))
        return self._keep(name, made)

    def number(self, name: str, **more: Any) -> Any:
        """A number box."""
        whole = TABLE[name].leaf.kind is int
        common = self._common(name, {"min_width": 120, **more})
        return self._keep(name, gr.Number(precision=0 if whole else None, **common))

    def check(self, name: str, **more: Any) -> Any:
        """A checkbox."""
        return self._keep(name, gr.Checkbox(**self._common(name, {"min_width": 120, **more})))

    def radio(self, name: str, **more: Any) -> Any:
        """One of a few choices, all in sight."""
        return self._keep(name, gr.Radio(self._choices(name), **self._common(name, more)))

    def dropdown(self, name: str, **more: Any) -> Any:
        """One of a list."""
        return self._keep(name, gr.Dropdown(self._choices(name), **self._common(name, {"min_width": 140, **more})))

    def text(self, name: str, **more: Any) -> Any:
        """A text box, also for a number that may be missing."""
        return self._keep(name, gr.Textbox(**self._common(name, {"placeholder": EMPTY_HINT.get(name), **more})))

    def modules(self, panels: str) -> Any:
        """The panels of the conditioning modules."""
        return self._keep("modules", ModulePanels(panels=panels, elem_id=self.element("modules")))

    def switch(self, name: str, element: str, **more: Any) -> Any:
        """The checkbox of a switch."""
        _, label, _, _ = SWITCHES[name]
        made = gr.Checkbox(
            value=False, label=label, interactive=True, elem_id=f"{self.tab}_{element}", container=False, **more
        )
        return self._keep(name, made)

    def _common(self, name: str, more: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "value": self.initial.get(name),
            "label": TABLE[name].label,
            "interactive": True,
            "elem_id": self.element(name),
            **more,
        }

    def _choices(self, name: str) -> list[Any]:
        return list(self.choices.get(name) or TABLE[name].choices)

    def _keep(self, name: str, made: Any) -> Any:
        self.made[name] = made
        return made


def field_update(name: str, value: Any, visible: bool | None = None) -> Any:
    """The update that puts ``value`` into a field; a slider grows when the value lies outside its range.

    ``visible`` None leaves the field shown or hidden as it is.
    """
    more: dict[str, Any] = {} if visible is None else {"visible": visible}
    low, high = (TABLE[name].low, TABLE[name].high) if name in TABLE else (None, None)
    is_number = low is not None and high is not None and isinstance(value, int | float)
    if is_number and not low <= value <= high:
        more |= {"minimum": min(low, value), "maximum": max(high, value)}
    return gr.update(value=value, **more) if more else value


def panel_update(panel: Any, on: bool) -> Any:
    """The update that opens or closes what a switch opens."""
    return gr.Accordion(open=on) if isinstance(panel, gr.Accordion) else gr.update(visible=on)
