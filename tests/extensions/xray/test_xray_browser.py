"""X-ray in Chromium, on the embedded model: a picture is made, chosen, made again and looked into, and saved."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

_PATH = Path(__file__).resolve().parents[2] / "ui" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("ui_servers", _PATH)
assert _SPEC and _SPEC.loader
ui = sys.modules["ui_servers"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(ui)
server, serving, context, page = ui.server, ui.serving, ui.context, ui.page

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

PROMPT = 'a red apple <img src="x" onerror="document.title=1">, (blue:1.3) background'
PATIENCE_MS = 300_000
"""For what a job does on a machine that has other things to do."""


def open_tab(page: Page) -> None:
    page.get_by_role("tab", name="X-ray", exact=True).first.click()
    page.wait_for_selector("#xray_generate")


def make_a_picture(page: Page, steps: int) -> None:
    page.fill("#txt2img_prompt textarea", PROMPT)
    for field, value in (("steps", steps), ("seed", 5)):
        page.fill(f"#txt2img_{field} input[type=number]", str(value))
        page.press(f"#txt2img_{field} input[type=number]", "Tab")
    page.click("#txt2img_generate")


def test_from_an_empty_tab_to_a_saved_file(page: Page, context: BrowserContext, tmp_path: Path) -> None:
    open_tab(page)
    assert "Look inside a picture" in page.locator("#xray_live").inner_text()
    page.click("#xray_generate")
    page.wait_for_selector("#xray_live .live-error:has-text('There is no picture')")

    page.get_by_role("tab", name="txt2img", exact=True).first.click()
    make_a_picture(page, steps=4)
    page.wait_for_selector("#txt2img_gallery img", timeout=PATIENCE_MS)
    open_tab(page)
    page.wait_for_selector("#xray_recent img")
    page.locator("#xray_recent button.thumbnail-item").first.click()
    page.wait_for_selector("#xray_view .x-said:has-text('what its recipe tells')")
    assert page.locator("#xray_view .x-token").count() > 5
    assert page.locator("#xray_view img").count() == 0, "the prompt's own <img> is text"

    page.fill("#xray_frames input[type=number]", "3")
    page.press("#xray_frames input[type=number]", "Tab")
    page.click("#xray_generate")
    page.wait_for_selector("#xray_view .x-said.good:has-text('bit for bit')", timeout=PATIENCE_MS)
    view = page.locator("#xray_view")
    assert view.locator(".x-strip").first.locator("img").count() == 9, "three moments, each noisy, clean and noise"
    assert "4 steps" in view.inner_text() and "What CFG did" in view.inner_text()
    assert all(view.locator("img").evaluate_all("(all) => all.map((one) => one.complete && one.naturalWidth > 0)"))

    shown = view.locator(".x-pane:visible")
    assert shown.evaluate_all("(all) => all.map((one) => one.className)") == ["x-pane x-pane-0"]
    view.locator(".x-pick").first.focus()
    page.keyboard.press("ArrowRight")
    assert shown.evaluate_all("(all) => all.map((one) => one.className)") == ["x-pane x-pane-1"]
    captions = shown.locator("figcaption").all_inner_texts()
    assert any(text.startswith("apple") for text in captions) and any(text.startswith("blue") for text in captions)

    with page.expect_download() as saved:
        page.click("#xray_save_html")
    file = tmp_path / "xray.html"
    saved.value.save_as(file)
    assert saved.value.suggested_filename == "xray-5.html"
    with page.expect_download() as animated:
        page.click("#xray_save_gif")
    animated.value.save_as(tmp_path / "xray.gif")
    with Image.open(tmp_path / "xray.gif") as gif:
        assert gif.n_frames == 4

    page.reload()
    page.wait_for_selector("#txt2img_generate")
    open_tab(page)
    page.wait_for_selector("#xray_view .x-strip", timeout=PATIENCE_MS)

    alone = context.browser.new_page()  # from the disk, without the server
    asked: list[str] = []
    alone.on("request", lambda request: asked.append(request.url))
    alone.goto(file.as_uri())
    assert alone.locator(".x-part").count() == 6 and alone.title() == "X-ray of a picture, seed 5"
    assert [address for address in asked if not address.startswith("data:")] == [file.as_uri()]
    assert alone.locator(".x-frame").first.evaluate("(one) => one.naturalWidth > 0")
    alone.close()


def test_a_running_job_is_looked_at(page: Page) -> None:
    make_a_picture(page, steps=60)
    page.wait_for_selector("body.running-txt2img")
    open_tab(page)
    page.click("#xray_attach")
    page.wait_for_selector("#xray_view .x-said:has-text('runs without X-ray')")
    assert page.locator("#xray_view .x-token").count() > 5
    assert page.locator("#xray_view circle").count() == 61
    page.wait_for_selector("#xray_view .x-asked", state="attached", timeout=PATIENCE_MS)
    page.wait_for_selector("#xray_view .x-said:has-text('what its recipe tells')", timeout=PATIENCE_MS)
    page.wait_for_selector("#xray_image img")


def test_without_a_choice_the_newest_picture_is_looked_at(page: Page) -> None:
    make_a_picture(page, steps=2)
    page.wait_for_selector("#txt2img_gallery img", timeout=PATIENCE_MS)
    open_tab(page)
    page.wait_for_selector("#xray_recent img")
    page.click("#xray_generate")
    page.wait_for_selector("#xray_view .x-said.good:has-text('bit for bit')", timeout=PATIENCE_MS)
    assert "2 steps" in page.locator("#xray_view").inner_text()
