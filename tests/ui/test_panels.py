"""Panels of plugins in the tabs: in their order, narrow, and harmless when they fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import gradio as gr
import pytest

from webui.engine.engine import Engine
from webui.engine.executor import Executor
from webui.settings import Settings
from webui.ui.app import build_page
from webui.ui.panels.aspect_ratio import RATIOS, sides

PANELS = """
from webui.hooks import hookimpl
from webui.ui.panels import Panel

def good(context):
    import gradio as gr
    known = {"txt2img": "prompt", "img2img": "denoising_strength", "extras": "upscaler"}
    assert known[context.tab] in context.fields and context.access.preprocessors()
    gr.Textbox(f"hello {context.tab}", elem_id=f"{context.tab}_hello")

def bad(context):
    import gradio as gr
    with gr.Row():
        gr.Textbox("half", elem_id="half")
        raise RuntimeError("out of <ideas>")

def leaving(context):
    raise SystemExit(1)

@hookimpl
def register_ui_panels():
    return [PANELS]
"""


def page_of(folder: Path, panels: str, **settings: Any) -> tuple[Engine, dict[str, dict[str, Any]], list[Any]]:
    """The engine, the page's components by element id, and the tree of the page."""
    folders = {f"{name}_dir": folder / name for name in ("models", "outputs", "extensions")}
    (folder / "extensions").mkdir()
    (folder / "extensions" / "more.py").write_text(PANELS.replace("PANELS]", f"{panels}]"), "utf-8")
    engine = Engine.create(Settings(**folders, **settings), cast(Executor, None))
    config = build_page(engine).get_config_file()
    components = {c["props"]["elem_id"]: c for c in config["components"] if c["props"].get("elem_id")}
    engine.store.close()
    return engine, components, [config["layout"]]


def below(tree: list[Any], wanted: int) -> list[int]:
    """The ids of everything below the component ``wanted``."""
    found: list[int] = []

    def walk(nodes: list[Any], inside: bool) -> None:
        for node in nodes:
            if inside:
                found.append(node["id"])
            walk(node.get("children") or [], inside or node["id"] == wanted)

    walk(tree, False)
    return found


def test_panels_stand_in_their_tabs_in_order(tmp_path: Path) -> None:
    panels = (
        "Panel(id='b', label='B', tabs=('txt2img', 'img2img', 'extras'), order=20, build=good), "
        "Panel(id='a', label='A', order=5, build=lambda context: None)"
    )
    engine, components, tree = page_of(tmp_path, panels)
    assert engine.problems() == []
    for tab, expected in (("txt2img", "a aspect_ratio b"), ("img2img", "a aspect_ratio b"), ("extras", "b")):
        inside = below(tree, components[f"{tab}_panels"]["id"])
        ids = {c["id"]: name for name, c in components.items()}
        found = [ids[one].partition("_panel_")[2] for one in inside if one in ids and "_panel_" in ids[one]]
        assert found == expected.split()
        assert components[f"{tab}_hello"]["id"] in inside
        assert components[f"{tab}_panel_b"]["props"]["open"] is False


def test_a_panel_that_fails_leaves_a_sentence_and_the_page_goes_on(tmp_path: Path) -> None:
    panels = (
        "Panel(id='bad', label='Bad', order=1, build=bad), Panel(id='leaving', label='Leaving', build=leaving), "
        "Panel(id='good', label='Good', order=3, build=good)"
    )
    engine, components, tree = page_of(tmp_path, panels, extension_failures=20)
    assert components["txt2img_hello"]["id"] in below(tree, components["txt2img_panel_good"]["id"])
    assert components["half"]["id"] not in below(tree, components["txt2img_panel_good"]["id"])
    told = [str(c["props"].get("value")) for c in components.values()]
    assert "txt2img_generate" in components and not any("Traceback" in one for one in told)
    assert any("out of <ideas>" in one and "extension more" in one for one in engine.problems())
    assert any("SystemExit" in one for one in engine.problems())


def test_the_sentence_stands_in_the_panels_place(tmp_path: Path) -> None:
    _, components, tree = page_of(tmp_path, "Panel(id='bad', label='Bad', tabs=('extras',), build=bad)")
    inside = below(tree, components["extras_panel_bad"]["id"])
    assert {components["half"]["id"], components["extras_panel_bad_problem"]["id"]} <= set(inside)
    told = components["extras_panel_bad_problem"]["props"]["value"]
    assert 'The panel "Bad" could not be built' in told.replace("&quot;", '"')
    assert "extension more" in told and "out of &lt;ideas&gt;" in told and "more.py, line 15" in told


@pytest.mark.parametrize("tabs", ["('nowhere',)", "()"])
def test_a_panel_for_no_tab_is_named(tmp_path: Path, tabs: str) -> None:
    engine, components, _ = page_of(tmp_path, f"Panel(id='lost', label='Lost', tabs={tabs}, build=good)")
    (problem,) = engine.problems()
    assert "extension more" in problem and "lost" in problem
    assert "txt2img_generate" in components


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("size", [(512, 512), (768, 512), (64, 64), (2048, 2048), (1, 1)])
def test_a_ratio_keeps_the_area(size: tuple[int, int], ratio: tuple[int, int]) -> None:
    width, height = sides(*size, ratio)
    assert width % 8 == height % 8 == 0 and min(width, height) >= 64 and max(width, height) <= 2048
    if min(size) >= 512 and max(size) < 1000:
        assert width * height == pytest.approx(size[0] * size[1], rel=0.03)
        assert width / height == pytest.approx(ratio[0] / ratio[1], rel=0.03)


def test_the_buttons_set_the_size(tmp_path: Path) -> None:
    folders = {f"{name}_dir": tmp_path / name for name in ("models", "outputs", "extensions")}
    engine = Engine.create(Settings(**folders), cast(Executor, None))
    page = build_page(engine)
    engine.store.close()
    (button,) = [b for b in page.blocks.values() if isinstance(b, gr.Button) and b.elem_id == "txt2img_ratio_16_9"]
    (event,) = [fn for fn in page.fns.values() if (button._id, "click") in fn.targets]
    assert cast(Any, event.fn)(512, 512)[:2] == [680, 384]
    assert [cast(Any, block).elem_id for block in event.outputs[:2]] == ["txt2img_width", "txt2img_height"]
