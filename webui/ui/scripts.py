"""The Script list of txt2img and img2img, and the options of the chosen script below it.

The boxes are made from each script's options record, so that an extension's script has them, too.  What is not chosen
is not on the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from webui.errors import RequestError
from webui.option_boxes import Box, boxes
from webui.request import ScriptUse
from webui.scripts import Script
from webui.ui.notices import connect

NONE = "None"
"""What the list shows when there is no script."""
FEW = 3
"""So many choices stand side by side; more are a list."""
MAX_FILE = 1_000_000
"""Bytes of a file that fills a text."""


class ScriptPanels:
    """The components of one tab: ``chosen`` is the list, ``components`` are all that :meth:`asked` hears of.

    ``lists`` are the entries that a box may name.
    """

    def __init__(self, tab: str, scripts: Sequence[Script], lists: Mapping[str, Sequence[Any]]) -> None:
        self.tab = tab
        self.lists = lists
        shown = [one for one in scripts if one.listed and (tab == "img2img" or not one.from_start)]
        self.boxes = {one.name: boxes(one.options) for one in shown}
        self.panels: list[Any] = []
        self.components: list[Any] = []
        self._files: list[tuple[Any, Any]] = []

    def build(self) -> None:
        """Create the components."""
        self.chosen = gr.Dropdown(
            [NONE, *self.boxes], value=NONE, label="Script", interactive=True, elem_id=f"{self.tab}_script_list"
        )
        self.components = [self.chosen]
        for name, shown in self.boxes.items():
            with gr.Column(visible=False, elem_id=element(self.tab, name, "panel"), min_width=200) as panel:
                self._build_boxes(name, shown)
            self.panels.append(panel)

    def _build_boxes(self, script: str, shown: Sequence[Box]) -> None:
        """The boxes of one script, flags below the others; in the order of the options among the components."""
        made: dict[str, Any] = {}
        flags = [box for box in shown if isinstance(box.default, bool)]
        for row in rows(box for box in shown if box not in flags):
            with gr.Row():
                made |= {box.name: self._box(script, box) for box in row}
        with gr.Row(elem_classes=["checks"]):
            for box in flags:
                made[box.name] = self._box(script, box)
        self.components += [made[box.name] for box in shown]

    def _box(self, script: str, box: Box) -> Any:
        common: dict[str, Any] = {
            "value": box.default,
            "label": box.label,
            "interactive": True,
            "elem_id": element(self.tab, script, box.name),
        }
        if isinstance(box.default, bool):
            return gr.Checkbox(container=False, min_width=120, info=box.hint or None, **common)
        if (choices := box.choices_for(self.tab == "img2img")) is not None:
            kind = gr.Radio if len(choices) <= FEW else gr.Dropdown
            return kind(choices, min_width=140, info=box.hint or None, **common)
        if box.entries:
            return gr.Dropdown(list(self.lists[box.entries]), min_width=140, info=box.hint or None, **common)
        if isinstance(box.default, str):
            return self._text(script, box, common)
        if box.low is not None and box.high is not None:
            return gr.Slider(box.low, box.high, step=box.step, buttons=[], info=box.hint or None, **common)
        precision = 0 if isinstance(box.default, int) else None
        return gr.Number(precision=precision, min_width=120, info=box.hint or None, **common)

    def _text(self, script: str, box: Box, common: Mapping[str, Any]) -> Any:
        if box.lines == 1:
            return gr.Textbox(max_lines=1, min_width=200, placeholder=box.hint or None, **common)
        with gr.Column(elem_classes=["wide"], min_width=200):
            text = gr.Textbox(lines=box.lines, max_lines=20, placeholder=box.hint or None, **common)
            file = gr.UploadButton(
                "Read a text file",
                size="sm",
                file_types=["text"],
                elem_id=element(self.tab, script, f"{box.name}_file"),
                elem_classes=["script-file"],
            )
        self._files.append((file, text))
        return text

    def wire(self, notice: Any) -> None:
        """Let the list open its panels and files fill their texts."""
        if self.panels:
            connect(self.chosen.change, self._open, self.chosen, self.panels, notice)
        for file, text in self._files:
            connect(file.upload, read_text, file, [text], notice)

    def _open(self, chosen: str | None) -> Any:
        updates = [gr.update(visible=name == chosen) for name in self.boxes]
        return updates[0] if len(updates) == 1 else updates

    def asked(self, values: Sequence[Any]) -> ScriptUse | None:
        """The script that the values of ``components`` ask for.  Raises RequestError for an empty number."""
        chosen, *rest = values
        if chosen in (NONE, None, ""):
            return None
        start = 0
        for name, shown in self.boxes.items():
            if name == chosen:
                given = rest[start : start + len(shown)]
                pairs = zip(shown, given, strict=True)
                return ScriptUse(name=name, options={box.name: _plain(box, value) for box, value in pairs})
            start += len(shown)
        raise RequestError(f'There is no script "{chosen}"; choose one in the list.')


def rows(shown: Iterable[Box]) -> list[list[Box]]:
    """The boxes by the row in which they stand."""
    found: list[list[Box]] = []
    for box in shown:
        if found and box.beside:
            found[-1].append(box)
        else:
            found.append([box])
    return found


def element(tab: str, script: str, item: str) -> str:
    """The element id of a script's item, made as AUTOMATIC1111 makes them."""
    title = re.sub(r"[^a-z_0-9]", "", re.sub(r"\s", "_", script.lower()))
    return f"script_{tab}_{title}_{item}"


def read_text(path: str) -> str:
    """The text of a file that was chosen.  Raises RequestError for one that is large or no text."""
    file = Path(path)
    if file.stat().st_size > MAX_FILE:
        raise RequestError(f"The file has more than {MAX_FILE // 1000} kB; choose a smaller one.")
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError("The file is no text in UTF-8; save it as such.") from error


def _plain(box: Box, value: Any) -> Any:
    """The option's value for a widget's: whole numbers come from the browser as any number."""
    convert: Callable[[Any], Any] = type(box.default)
    if isinstance(box.default, bool | str):
        return convert(value or "")
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"{box.label} is empty; type a number.")
    if isinstance(box.default, int) and value != int(value):
        raise RequestError(f"{box.label} is {value:g}; it must be a whole number.")
    return convert(value)
