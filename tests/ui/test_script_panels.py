"""The Script list and its boxes: what they ask for, without a browser."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from scripts_loaded import SCRIPTS, file

from webui.errors import RequestError
from webui.request import ScriptUse
from webui.scripts import Expansion, Script, boxes, option
from webui.ui.scripts import MAX_FILE, NONE, ScriptPanels, element, read_text

BUILT_IN = [script for script in SCRIPTS if not script.from_start]


@dataclass(frozen=True)
class Options:
    plain_field: int = 3
    share: float = option(0.5, "Share", low=0, high=1, step=0.1)
    mode: str = option("a", "Mode", choices=lambda img2img: ("a", "b") if img2img else ("a",))
    secret: bool = option(False, "Secret", shown=False)
    odd: tuple[int, ...] = ()


OWN = Script(name="Own: script", options=Options, expand=lambda request, _: Expansion(requests=(request,)))


def panels(tab: str, *scripts: Script) -> ScriptPanels:
    made = ScriptPanels(tab, scripts, {"img2img_upscaler": ["None", "Lanczos"]})
    with gr.Blocks():
        made.build()
    return made


def fresh(made: ScriptPanels, chosen: str) -> list[Any]:
    return [chosen, *(component.value for component in made.components[1:])]


def test_the_boxes_of_a_record() -> None:
    assert [(box.name, box.label, box.default) for box in boxes(Options)] == [
        ("plain_field", "Plain field", 3),
        ("share", "Share", 0.5),
        ("mode", "Mode", "a"),
    ]


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
@pytest.mark.parametrize("script", BUILT_IN, ids=lambda script: script.name)
def test_untouched_boxes_ask_for_the_options_of_a_fresh_record(script: Script, tab: str) -> None:
    made = panels(tab, *BUILT_IN)
    use = made.asked(fresh(made, script.name))
    assert use is not None and use.name == script.name
    assert asdict(script.options(**use.options)) == asdict(script.options())


def test_without_a_script_none_is_asked_for() -> None:
    made = panels("txt2img", *BUILT_IN)
    assert made.asked(fresh(made, NONE)) is None
    with pytest.raises(RequestError, match='no script "gone"'):
        made.asked(fresh(made, "gone"))


def test_each_script_has_its_own_boxes() -> None:
    made = panels("txt2img", OWN, *BUILT_IN)
    values = fresh(made, "Own: script")
    values[1:4] = [7.0, 1, "a"]
    assert made.asked(values) == ScriptUse(name="Own: script", options={"plain_field": 7, "share": 1.0, "mode": "a"})


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(None, "Plain field is empty; type a number."), (2.5, "Plain field is 2.5; it must be a whole number.")],
)
def test_a_wrong_number_is_one_sentence(value: Any, sentence: str) -> None:
    made = panels("txt2img", OWN)
    values = fresh(made, OWN.name)
    values[1] = value
    with pytest.raises(RequestError) as caught:
        made.asked(values)
    assert str(caught.value) == sentence


def test_the_axes_are_those_of_the_tab() -> None:
    for tab, there, not_there in (
        ("txt2img", "Hires steps", "Image CFG Scale"),
        ("img2img", "Image CFG Scale", "Hires steps"),
    ):
        made = panels(tab, file("xyz_plot").SCRIPT)
        axes = next(one for one in made.components if one.elem_id == f"script_{tab}_xyz_plot_x_axis")
        names = [name for name, _ in axes.choices]
        assert there in names and not_there not in names


def test_sd_upscale_stands_in_img2img_alone_with_the_upscalers() -> None:
    script = file("sd_upscale").SCRIPT
    assert not panels("txt2img", script).boxes
    made = panels("img2img", script)
    assert made.components[3].choices == [("None", "None"), ("Lanczos", "Lanczos")]
    use = made.asked([script.name, 32.0, 2, "Lanczos"])
    assert use is not None and use.options == {"overlap": 32, "scale": 2.0, "upscaler": "Lanczos"}


def test_an_element_id_is_upstreams() -> None:
    assert element("img2img", "X/Y/Z plot", "draw_legend") == "script_img2img_xyz_plot_draw_legend"


def test_a_file_of_prompts_is_read_and_what_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa fox\nüber".encode())
    assert read_text(str(file)) == "a fox\nüber"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match="UTF-8"):
        read_text(str(file))
    file.write_bytes(b"a" * (MAX_FILE + 1))
    with pytest.raises(RequestError, match="smaller"):
        read_text(str(file))
