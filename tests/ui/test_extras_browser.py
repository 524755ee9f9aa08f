"""The Extras tab in Chromium: one picture, a batch, a folder, a sentence, and a picture sent there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_page_browser import ask, fill, generate, open_tab, wait_for_pictures
from tiny_model import picture_bytes

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.ui.conftest import Server

pytestmark = pytest.mark.browser


def choose(page: Page, box: str, name: str) -> None:
    """Pick an entry of a dropdown."""
    page.click(f"#{box} input")
    page.get_by_role("option", name=name, exact=True).click()


def newest(server: Server) -> dict[str, object]:
    job: dict[str, object] = ask(server, "jobs?limit=1")[0]
    return job


def sizes(server: Server) -> list[tuple[int, int]]:
    return [(output["width"], output["height"]) for output in ask(server, "jobs?limit=1")[0]["outputs"]]


def test_one_picture_by_a_factor_and_to_a_size(page: Page, server: Server, tmp_path: Path) -> None:
    (tmp_path / "my cat.png").write_bytes(picture_bytes(48, 32))
    open_tab(page, "Extras")
    page.set_input_files("#extras_image input[type=file]", tmp_path / "my cat.png")
    page.wait_for_selector("#extras_image img")
    choose(page, "extras_upscaler_1", "Lanczos")
    fill(page, "upscaling_resize", 2, "extras")
    page.click("#extras_generate")
    wait_for_pictures(page, "", "extras")
    page.wait_for_selector("#html_info_extras:has-text('Postprocess upscaler: Lanczos')")
    assert newest(server)["kind"] == "extras" and sizes(server) == [(96, 64)]
    first = page.locator("#extras_live .live-card").get_attribute("data-shown") or ""
    page.get_by_role("tab", name="Scale to", exact=True).click()
    fill(page, "upscaling_resize_w", 128, "extras")
    fill(page, "upscaling_resize_h", 64, "extras")
    page.click("#extras_generate")
    wait_for_pictures(page, first, "extras")
    assert sizes(server) == [(128, 64)]
    assert sorted(file.name for file in server.outputs.glob("extras-images/*/*"))[:1] == ["00001-my cat.png"]
    page.click("#extras_send_to_pnginfo")
    page.wait_for_selector("#pnginfo_image img")
    page.click("#pnginfo_reproduce")
    page.wait_for_selector("#pnginfo_verdict .verdict")
    assert page.locator("#pnginfo_verdict h3").inner_text().lower() == "bit-exact"


def test_a_batch_and_a_folder(page: Page, server: Server, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture_bytes(16, 16, number))
    open_tab(page, "Extras")
    choose(page, "extras_upscaler_1", "Nearest")
    fill(page, "upscaling_resize", 2, "extras")
    page.get_by_role("tab", name="Batch Process", exact=True).click()
    page.set_input_files("#extras_image_batch input[type=file]", [tmp_path / "0.png", tmp_path / "1.png"])
    page.wait_for_selector("#extras_image_batch :text('1')")
    page.click("#extras_generate")
    wait_for_pictures(page, "", "extras")
    assert sizes(server) == [(32, 32)] * 2
    first = page.locator("#extras_live .live-card").get_attribute("data-shown") or ""
    page.get_by_role("tab", name="Batch from Directory", exact=True).click()
    page.locator("#extras_batch_input_dir textarea, #extras_batch_input_dir input").fill(str(tmp_path))
    page.click("#extras_generate")
    wait_for_pictures(page, first, "extras")
    assert sizes(server) == [(32, 32)] * 3


def test_what_is_missing_is_one_sentence(page: Page) -> None:
    open_tab(page, "Extras")
    page.click("#extras_generate")
    page.wait_for_selector("#extras_live .live-error:has-text('There is no picture; choose one first')")
    page.click("#extras_refresh")
    page.wait_for_selector("#notice:has-text('upscalers found')")


def test_a_generated_picture_is_sent_there_and_keeps_its_text(page: Page, server: Server) -> None:
    fill(page, "prompt", "a red apple")
    fill(page, "steps", 2)
    generate(page)
    page.click("#txt2img_send_to_extras")
    page.wait_for_selector("#extras_image img")
    choose(page, "extras_upscaler_1", "Lanczos")
    page.click("#extras_generate")
    wait_for_pictures(page, "", "extras")
    page.wait_for_selector("#html_info_extras:has-text('a red apple')")
    assert sizes(server) == [(512, 512)]
