"""The cards of model files, in Chromium, against a server with a models folder of its own."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from header_files import header_file
from network_toy import STYLE, write_style
from PIL import Image

from tests.ui.conftest import MODELS, Server

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser

MANY = 2000
LAST = "model 1994"
"""The last one of "set 6"."""


@pytest.fixture(scope="module")
def server(
    serving: Callable[[Path, Path], AbstractContextManager[Server]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("cards")
    models = folder / "models"
    for name in ("starter", "other"):
        place = models / "Stable-diffusion" / f"{name}.safetensors"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(MODELS / "Stable-diffusion" / "starter.safetensors", place)
    for number in range(MANY):
        header_file(models / f"Lora/set {number % 7}/model {number}.safetensors", {"ss_output_name": f"out-{number}."})
    tags = json.dumps({"a": {"quill": 5, "hatching": 2}})
    header_file(models / "Lora/ink.safetensors", {"ss_base_model_version": "sd_v1", "ss_tag_frequency": tags})
    (models / "Lora/ink.json").write_text(
        json.dumps({"activation text": "inkstyle", "preferred weight": 0.8, "negative text": "photo", "own": [1]})
    )
    Image.new("RGB", (64, 96), "red").save(models / "Lora/ink.preview.png")
    (models / "Lora/a damaged one.safetensors").write_bytes(b"x")
    shutil.copytree(MODELS / "embeddings", models / "embeddings")
    write_style(models / "styles/drawn/wash.safetensors")
    extensions = folder / "extensions"
    extensions.mkdir()
    (extensions / "style.py").write_text(STYLE, "utf-8")
    with serving(folder, models, "--extensions-dir", str(extensions)) as running:
        yield running


def prompt(page: Page, name: str = "prompt", tab: str = "txt2img") -> str:
    return page.input_value(f"#{tab}_{name} textarea")


def open_cards(page: Page, name: str, tab: str = "txt2img") -> None:
    page.click(f"#{tab}_{name}_tab")
    page.wait_for_selector(f"#{tab}_{name}_pane")


def card(page: Page, name: str, kind: str = "lora", tab: str = "txt2img") -> Locator:
    return page.locator(f'#{tab}_{kind}_cards .card[data-name="{name}"]')


def search(page: Page, words: str, found: int, kind: str = "lora") -> None:
    from playwright.sync_api import expect

    page.fill(f"#txt2img_{kind}_extra_search", words)
    status = page.locator(f"#txt2img_{kind}_pane .cards-status")
    expect(status).to_have_text(f"{found:,} file{'' if found == 1 else 's'}", timeout=30_000)


def ask(server: Server, path: str) -> Any:
    with urllib.request.urlopen(f"{server.address}api/v1/{path}", timeout=30) as answer:
        return json.load(answer)


def test_a_click_writes_the_tag_and_its_words_and_another_takes_them_back(page: Page) -> None:
    page.fill("#txt2img_prompt textarea", "a cat")
    open_cards(page, "lora")
    assert not page.locator("#txt2img_settings").is_visible()
    main = card(page, "ink").locator(".card-main")
    main.click()
    assert prompt(page) == "a cat <lora:ink:0.8> inkstyle"
    assert prompt(page, "neg_prompt") == "photo"
    assert main.get_attribute("aria-pressed") == "true"
    page.fill("#txt2img_prompt textarea", "a cat <lora:ink:0.35> inkstyle, a dog")
    main.click()
    assert (prompt(page), prompt(page, "neg_prompt")) == ("a cat, a dog", "")
    assert main.get_attribute("aria-pressed") == "false"
    page.click("#txt2img_generation_tab")
    assert page.locator("#txt2img_settings").is_visible()


def test_thousands_of_cards_are_found_by_scrolling_searching_and_folder(page: Page) -> None:
    from playwright.sync_api import expect

    open_cards(page, "lora")
    expect(page.locator("#txt2img_lora_pane .cards-status")).to_have_text(f"{MANY + 2:,} files", timeout=30_000)
    assert page.locator("#txt2img_lora_cards .card").count() < 100
    page.locator("#txt2img_lora_pane .cards-scroll").evaluate("(node) => { node.scrollTop = node.scrollHeight; }")
    card(page, LAST).wait_for()
    search(page, "OUT-1234.", 1)
    card(page, "model 1234").wait_for()
    search(page, "quill", 1)
    card(page, "ink").wait_for()
    search(page, "no such thing", 0)
    page.get_by_role("button", name="Show all").click()
    page.locator("#txt2img_lora_tree").get_by_role("button", name="set 3").click()
    card(page, "model 3").wait_for()
    expect(page.locator("#txt2img_lora_pane .cards-status")).to_have_text("286 files")
    page.click("#txt2img_lora_extra_sort_dir")
    card(page, "model 1998").wait_for()


def test_the_keyboard_reaches_every_card(page: Page) -> None:
    page.focus("#txt2img_generation_tab")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#txt2img_kind_style_cards .card")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#txt2img_lora_cards .card")
    card(page, "a damaged one").locator(".card-main").focus()
    page.keyboard.press("ArrowRight")
    focused = "document.activeElement.closest('.card')?.dataset.name"
    page.wait_for_function(f"{focused} === 'ink'")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#txt2img_prompt textarea').value.startsWith('<lora:ink:0.8>')")
    page.keyboard.press("End")
    page.wait_for_function(f"{focused} === '{LAST}'")
    page.keyboard.press("Home")
    page.wait_for_function(f"{focused} === 'a damaged one'")


def test_notes_are_written_where_automatic1111_looks_for_them(page: Page, server: Server) -> None:
    open_cards(page, "lora")
    search(page, "out-17.", 1)
    one = card(page, "model 17")
    one.hover()
    one.locator(".edit-button").click()
    page.fill("dialog textarea[name=activation_text]", "quill <b>")
    page.fill("dialog input[type=number]", "0.65")
    page.fill("dialog textarea[name=notes]", "from here")
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("dialog", state="detached")
    table = json.loads((server.outputs.parent / "models/Lora/set 3/model 17.json").read_text())
    assert table == {"activation text": "quill <b>", "preferred weight": 0.65, "notes": "from here"}
    assert one.locator(".description").inner_text() == "quill <b>"
    one.locator(".card-main").click()
    assert prompt(page) == "<lora:model 17:0.65> quill <b>"


def test_metadata_and_what_is_wrong_with_a_file(page: Page) -> None:
    from playwright.sync_api import expect

    open_cards(page, "lora")
    broken = card(page, "a damaged one")
    expect(broken.locator(".card-problem")).to_be_visible(timeout=30_000)
    broken.hover()
    broken.locator(".metadata-button").click()
    expect(page.locator("dialog .cards-error")).to_contain_text("has only 1 bytes")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    ink = card(page, "ink")
    ink.hover()
    ink.locator(".metadata-button").click()
    expect(page.locator("dialog .cards-facts")).to_contain_text("Lora/ink.safetensors")
    expect(page.locator("dialog .cards-tags")).to_contain_text("quill 5")
    page.click("dialog summary")
    expect(page.locator("dialog pre")).to_contain_text('"ss_base_model_version": "sd_v1"')


def test_a_checkpoint_is_chosen_and_a_word_goes_where_the_cursor_was(page: Page, server: Server) -> None:
    from playwright.sync_api import expect

    box = page.locator("#setting_sd_model_checkpoint input")
    expect(box).to_have_value(re.compile("^other.safetensors"))
    open_cards(page, "checkpoints")
    card(page, "starter", "checkpoints").locator(".card-main").click()
    expect(box).to_have_value(re.compile("^starter.safetensors"))
    expect(card(page, "starter", "checkpoints").locator(".card-main")).to_have_attribute("aria-pressed", "true")

    open_cards(page, "textual_inversion")
    mint = card(page, "mint", "textual_inversion").locator(".card-main")
    page.focus("#txt2img_neg_prompt textarea")
    mint.click()
    assert (prompt(page), prompt(page, "neg_prompt")) == ("", "mint")
    mint.click()
    page.focus("#txt2img_prompt textarea")
    mint.click()
    assert (prompt(page), prompt(page, "neg_prompt")) == ("mint", "")

    open_cards(page, "hypernetworks")
    expect(page.locator("#txt2img_hypernetworks_pane .cards-empty")).to_contain_text("models/hypernetworks")


def test_a_kind_of_an_extension_has_a_tab_and_its_cards_write_its_tag(page: Page) -> None:
    page.fill("#txt2img_prompt textarea", "a cat")
    assert page.locator("#txt2img_extra_tabs [role=tab]").last.inner_text() == "Style file"
    open_cards(page, "kind_style")
    main = card(page, "wash", "kind_style").locator(".card-main")
    main.click()
    assert prompt(page) == "a cat <style:wash:1>" and main.get_attribute("aria-pressed") == "true"
    main.click()
    assert prompt(page) == "a cat" and main.get_attribute("aria-pressed") == "false"
    page.fill("#txt2img_prompt textarea", "a cat <look:wash:0.5:mode=Hard>, a dog")
    main.click()
    assert prompt(page) == "a cat, a dog"
    card(page, "wash", "kind_style").locator(".edit-button").click()
    page.get_by_text("Preferred weight, 0 for the usual 1").wait_for()


def test_a_finished_picture_becomes_the_preview(page: Page, server: Server) -> None:
    page.fill("#txt2img_prompt textarea", "a red apple")
    page.fill("#txt2img_steps input[type=number]", "2")
    open_cards(page, "lora")
    page.click("#txt2img_generate")
    page.wait_for_selector("#txt2img_gallery img")  # the workbench came back by itself
    open_cards(page, "lora")
    search(page, "out-42.", 1)
    one = card(page, "model 42")
    assert one.locator("img").count() == 0
    one.hover()
    one.locator(".edit-button").click()
    page.click("dialog .cards-preview")
    page.wait_for_selector("dialog .cards-preview.chosen")
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_function("document.querySelector('.card[data-name=\"model 42\"] img')?.naturalWidth > 0")
    [output] = ask(server, "jobs?limit=1")[0]["outputs"]
    written = server.outputs.parent / "models/Lora/set 0/model 42.png"
    assert written.read_bytes() == (server.outputs / output["path"]).read_bytes()


def test_img2img_has_cards_of_its_own_and_a_phone_shows_them_too(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("tab", name="img2img", exact=True).first.click()
    open_cards(page, "lora", "img2img")
    card(page, "ink", tab="img2img").locator(".card-main").click()
    assert prompt(page, tab="img2img") == "<lora:ink:0.8> inkstyle"
    assert prompt(page) == ""
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    sheet = page.locator("#img2img_lora_cards").bounding_box()
    last = page.locator("#img2img_lora_cards .card").nth(1).bounding_box()
    assert sheet and last and last["x"] + last["width"] <= sheet["x"] + sheet["width"] + 1
