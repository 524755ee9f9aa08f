"""The page is built whatever the folders hold; nothing here needs a browser or a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from webui.engine.engine import Engine
from webui.engine.executor import Executor
from webui.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folders = {name: tmp_path / name for name in ("models", "outputs", "extensions")}
    for folder in folders.values():
        folder.mkdir()
    return Settings(models_dir=folders["models"], outputs_dir=folders["outputs"], extensions_dir=folders["extensions"])


def built(settings: Settings) -> tuple[Any, dict[str, Any]]:
    """The page, and its components' properties by element id."""
    from webui.ui.app import build_page

    page = build_page(Engine.create(settings, cast(Executor, None)))
    components = page.get_config_file()["components"]
    return page, {c["props"]["elem_id"]: c["props"] for c in components if c["props"].get("elem_id")}


def test_without_any_model_the_page_says_where_one_goes(settings: Settings) -> None:
    _, components = built(settings)
    assert "There is no model yet" in components["model_note"]["value"]
    assert str(settings.models_dir / "Stable-diffusion") in components["model_note"]["value"]
    assert components["setting_sd_model_checkpoint"]["choices"] == []


def test_an_extension_adds_a_tab_and_a_broken_one_does_not_take_the_page_with_it(settings: Settings) -> None:
    (settings.extensions_dir / "extra.py").write_text(
        "from webui.hooks import hookimpl\n"
        "from webui.ui.tabs import Tab\n"
        "def good(context):\n"
        "    import gradio as gr\n"
        "    gr.Textbox('hello', elem_id='from_the_extension')\n"
        "def bad(context):\n"
        "    raise RuntimeError('out of <ideas>')\n"
        "@hookimpl\n"
        "def register_ui_tabs():\n"
        "    tabs = (('good', good), ('bad', bad))\n"
        "    return [Tab(id=name, label=name, order=50, build=build) for name, build in tabs]\n"
    )
    page, components = built(settings)
    assert components["from_the_extension"]["value"] == "hello"
    assert {"tab_txt2img", "tab_img2img", "tab_pnginfo", "tab_good", "tab_bad"} <= set(components)
    [sentence] = [
        c["props"]["value"]
        for c in page.get_config_file()["components"]
        if "could not be built" in str(c["props"].get("value"))
    ]
    assert "RuntimeError: out of &lt;ideas&gt;" in sentence
