"""The HTML of modules' panels: what stands in it, and that no word of an extension is taken for markup."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any, Literal

from webui.option_boxes import Box, Kind, option
from webui.ui.module_panels import element, listed_by, panels

WORDS = "<b>\"${x} {{y}}'s</b>"


@dataclass(frozen=True)
class Options:
    image: str = option("", "Picture", kind=Kind.PICTURE)
    mask: str = option("", "Mask", kind=Kind.MASK, of="image")
    alone: str = option("", "Region", kind=Kind.MASK)
    preprocessor: str = option("", "Preprocessor", kind=Kind.PREPROCESSOR, of="image")
    upscaler: str = option("None", "Upscaler", entries="img2img_upscaler")
    text: str = option(WORDS, WORDS, hint=WORDS, lines=3)
    mode: str = option("a", "Mode", choices=("a", "b", "c", WORDS))
    side: Literal[512, 1024] = 512
    start: float = option(0.0, "Start", low=0, high=1, step=0.01)
    end: float = option(1.0, "End", low=0, high=1, step=0.01, beside=True, when=("mode", "a"))
    free: float = 0.5
    on: bool = False
    off: bool = True
    hidden: str = option("", "Hidden", shown=False)


class Fields(HTMLParser):
    """The attributes of every element, by tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, Any]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str, **wanted: str) -> list[dict[str, Any]]:
        return [about for name, about in self.found if name == tag and wanted.items() <= about.items()]

    @property
    def fields(self) -> dict[str, dict[str, Any]]:
        return {about["data-field"]: about for _, about in self.found if "data-field" in about}


def made(tab: str = "txt2img", **more: Any) -> tuple[str, Fields]:
    module: Any = SimpleNamespace(**{"name": "Toy (v2)", "options": Options, **more})

    def entries(box: Box) -> list[str] | None:
        return ["", "canny"] if box.kind is Kind.PREPROCESSOR else None

    html = panels(tab, [module], listed_by(entries, {"img2img_upscaler": ["None", "Lanczos"]}))
    return html, Fields(html)


def test_every_shown_option_has_its_field() -> None:
    _, page = made()
    assert {name: about["data-holds"] for name, about in page.fields.items()} == {
        "image": "picture", "alone": "picture", "preprocessor": "choice", "upscaler": "choice", "text": "text",
        "mode": "choice", "side": "radio", "start": "number", "end": "number", "free": "number", "on": "flag",
        "off": "flag",
    }  # fmt: skip
    assert page.fields["image"]["data-mask"] == "mask" and "data-mask" not in page.fields["alone"]
    assert json.loads(page.fields["end"]["data-when"]) == ["mode", "a"]
    assert {name: json.loads(about["data-default"]) for name, about in page.fields.items() if name != "text"} == {
        "image": "", "alone": "", "preprocessor": "", "upscaler": "None", "mode": "a", "side": 512, "start": 0.0,
        "end": 1.0, "free": 0.5, "on": False, "off": True,
    }  # fmt: skip
    assert len(page.of("input", type="range")) == 2 + 2, "two of options, two brushes"
    assert [json.loads(one["value"]) for one in page.of("option")] == [
        "", "canny", "None", "Lanczos", "a", "b", "c", WORDS,
    ]  # fmt: skip
    assert len(page.of("button", **{"data-do": "preview"})) == 1


def test_words_are_no_markup_and_no_template() -> None:
    html, page = made(label=WORDS)
    assert not re.search(r"[{}$]", html), "gradio would take them for its own"
    assert page.of("b") == [] and html.count(unescape("&lt;b&gt;")) == 0
    assert json.loads(page.fields["text"]["data-default"]) == WORDS
    assert page.of("textarea")[0]["placeholder"] == WORDS


def test_units_are_tabs_and_one_unit_has_none() -> None:
    _, page = made(units=3)
    assert [one["data-unit"] for one in page.of("button", role="tab")] == ["0", "1", "2"]
    assert page.of("details")[0].items() >= {"data-units": "3", "data-module": "Toy (v2)"}.items()
    assert "open" not in page.of("details")[0] and len(page.of("template")) == 1, "closed, and one unit for all"
    assert made()[1].of("button", role="tab") == []
    assert page.of("details")[0]["id"] == element("txt2img", "Toy (v2)") == "txt2img_module_toy__v2_"


def test_a_module_with_a_preview_of_its_own_has_the_button() -> None:
    @dataclass(frozen=True)
    class Plain:
        words: str = ""

    assert made(options=Plain)[1].of("button", **{"data-do": "preview"}) == []
    shown = made(options=Plain, preview=lambda options, pictures: None)[1]
    assert len(shown.of("button", **{"data-do": "preview"})) == 1


def test_a_painted_option_is_seen_as_it_is_painted_and_needs_no_preview() -> None:
    @dataclass(frozen=True)
    class Painted:
        places: str = option("", WORDS, kind=Kind.PAINT)

    html, page = made(options=Painted, preview=lambda options, pictures: None)
    assert page.fields["places"]["data-holds"] == "paint" and len(page.of("canvas")) == 1
    assert page.of("canvas")[0]["aria-label"] == WORDS and not re.search(r"[{}$]", html) and page.of("b") == []
    assert page.of("button", **{"data-do": "preview"}) == []
    tools = [one["data-tool"] for one in page.of("button") if "data-tool" in one]
    assert tools == ["brush", "box", "fill", "eraser"]
