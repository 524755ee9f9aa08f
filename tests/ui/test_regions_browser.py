"""Regions on the page, in Chromium on the embedded model: the grid is seen while it is typed, regions are painted."""

from __future__ import annotations

import io
import json
import re
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from test_page_browser import ask, drop_file, fill, generate, newest, open_tab, pixels, wait_value

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.ui.conftest import Server

pytestmark = pytest.mark.browser
PANEL = "#txt2img_module_regional"
RED, CYAN, LIME, NONE = (237, 90, 90), (90, 237, 237), (164, 237, 90), (0, 0, 0)
"""The first three paints as the page shows them, and no paint."""
PROMPT = "a red apple on a white background BREAK a blue car on a white background"
SETTINGS = "Steps: 4, Sampler: Euler, CFG scale: 3, Seed: 1, Size: 128x128"


def opened(page: Page, prompt: str, regions: int) -> None:
    """The panel with a prompt of so many regions."""
    from playwright.sync_api import expect

    fill(page, "prompt", prompt)
    page.click(f"{PANEL} summary")
    expect(page.locator(f"{PANEL} .paint-region")).to_have_count(regions)


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """The mouse from one place of the canvas to another, in shares of its size."""
    page.locator(f"{PANEL} .paint-canvas").scroll_into_view_if_needed()
    box = page.locator(f"{PANEL} .paint-canvas").bounding_box()
    assert box is not None
    (x, y), (to_x, to_y) = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move((x + to_x) / 2, (y + to_y) / 2)
    page.mouse.move(to_x, to_y)
    page.mouse.up()


def seen(page: Page, *places: tuple[float, float]) -> list[tuple[int, ...]]:
    """The paint at places of the canvas, as it is on the screen after the next frame."""
    found = page.evaluate(
        """async ([panel, places]) => {
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            const canvas = document.querySelector(`${panel} .paint-canvas`), pen = canvas.getContext("2d");
            const at = (share, length) => Math.min(length - 1, Math.floor(share * length));
            return places.map(([x, y]) => [...pen.getImageData(at(x, canvas.width), at(y, canvas.height), 1, 1).data]);
        }""",
        [PANEL, places],
    )
    assert all(one[3] in (0, 255) for one in found), "an edge is hard"
    return [tuple(one[:3]) for one in found]


def come_back(page: Page, panel: str = PANEL) -> None:
    """Wait until the two halves stand on the canvas, in the colours that the page has for the prompt's regions."""
    page.wait_for_selector(f"{panel} .painted [data-paint='1']")
    page.wait_for_function(
        """([panel, left, right]) => {
            const canvas = document.querySelector(`${panel} .paint-canvas`), pen = canvas.getContext("2d");
            const is = (x, y, colour) => String([...pen.getImageData(x, y, 1, 1).data].slice(0, 3)) === String(colour);
            return is(0, canvas.height - 1, left) && is(canvas.width - 1, 0, right);
        }""",
        arg=[panel, CYAN, RED],
    )


def red_over_blue(half: np.ndarray[Any, Any]) -> float:
    return float((half[..., 0] - half[..., 2]).mean())


def test_without_its_regions_no_picture_is_made(page: Page, server: Server) -> None:
    from playwright.sync_api import expect

    opened(page, "sky BREAK a car", 2)
    page.check(f"{PANEL} .mod-enable input")
    page.click(f"{PANEL} [data-do=plan]")
    page.route("**/api/v1/inputs", lambda route: route.fulfill(json={"error": "The disk is full."}))
    before = ask(server, "jobs?limit=1")
    page.click("#txt2img_generate")
    expect(page.locator(f"{PANEL} .mod-error")).to_have_text("The disk is full.")
    page.unroute("**/api/v1/inputs")
    fill(page, "steps", 1)
    generate(page)
    made, *others = ask(server, "jobs?limit=2")
    assert made["request"]["modules"][0]["options"]["mask"] and others == before, "one job, of the second time"


def test_the_grid_is_seen_while_it_is_typed(page: Page) -> None:
    from playwright.sync_api import expect

    opened(page, "sky BREAK a <b>red</b> apple BREAK a car", 3)
    regions, note = page.locator(f"{PANEL} .paint-region"), page.locator(f"{PANEL} .paint-note")
    expect(regions).to_have_text(["1sky", "2a <b>red</b> apple", "3a car"])
    expect(page.locator(f"{PANEL} .paint-colour")).to_have_text(
        ["1redsky", "2cyana <b>red</b> apple", "3limea car", "elsewhereas region 1, red"]
    )
    whole = page.locator(f"{PANEL} .paint-plan").bounding_box()
    assert whole is not None and whole["width"] == pytest.approx(whole["height"], rel=0.02)

    page.fill(f"{PANEL}_0_ratios input", "1,3;3,1,2")
    page.wait_for_function(f"document.querySelector('{PANEL} .paint-region').style.height === '25%'")
    expect(regions.nth(1)).to_have_attribute("style", re.compile(r"left: 0%; top: 25%; width: 33\.3\d*%; height: 75%;"))
    expect(note).to_have_text("Nothing is painted: the regions are as shown.")
    page.fill(f"{PANEL}_0_ratios input", "1,3")
    expect(note).to_contain_text("make 2 regions and the prompt has 3")
    expect(regions).to_have_count(0)
    expect(page.locator(f"{PANEL} .paint-colour")).to_have_count(4)
    fill(page, "prompt", "sky BREAK a car")
    expect(regions).to_have_text(["1sky", "2a car"])
    for region, place in ((0, "left: 0%; top: 0%; width: 25%"), (1, "left: 25%; top: 0%; width: 75%")):
        expect(regions.nth(region)).to_have_attribute("style", re.compile(f"{place}; height: 100%;"))
    fill(page, "width", 256)
    expect(page.locator(f"{PANEL} .paint-size")).to_have_text("256 × 128")
    whole = page.locator(f"{PANEL} .paint-plan").bounding_box()
    assert whole is not None and whole["width"] == pytest.approx(2 * whole["height"], rel=0.02)
    fill(page, "prompt", "sky AND a car")
    expect(note).to_contain_text("write BREAK between their texts")


def test_painting_by_mouse_and_keys_and_taking_it_back(page: Page, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    opened(page, "sky BREAK a car BREAK a tree", 3)
    note = page.locator(f"{PANEL} .paint-note")
    drag(page, (0.2, 0.2), (0.2, 0.8))
    assert seen(page, (0.2, 0.2), (0.2, 0.5), (0.2, 0.8), (0.5, 0.5)) == [RED, RED, RED, NONE]
    expect(page.locator(f"{PANEL} .paint-plan")).to_be_hidden()
    expect(note).to_have_text("Nothing is painted yet for 2 cyan, 3 lime.")
    page.keyboard.press("2")
    page.keyboard.press("r")
    drag(page, (0.5, 0.1), (0.9, 0.9))
    assert seen(page, (0.51, 0.11), (0.89, 0.89), (0.49, 0.5)) == [CYAN, CYAN, NONE]
    page.click(f"{PANEL} [data-tool=fill]")
    page.click(f"{PANEL} [data-paint='2']")
    drag(page, (0.01, 0.01), (0.01, 0.01))
    assert seen(page, (0.99, 0.99), (0.2, 0.5), (0.7, 0.5)) == [LIME, RED, CYAN]
    expect(note).to_have_text("")
    page.keyboard.press("e")
    drag(page, (0.7, 0.5), (0.7, 0.6))
    assert seen(page, (0.7, 0.5), (0.7, 0.3)) == [NONE, CYAN]

    for expected in ([CYAN, LIME], [CYAN, NONE], [NONE, NONE], [NONE, NONE]):
        page.keyboard.press("Control+z")
        assert seen(page, (0.7, 0.5), (0.01, 0.01)) == expected
    expect(page.locator(f"{PANEL} [data-do=undo]")).to_be_disabled()
    expect(page.locator(f"{PANEL} .paint-plan")).to_be_visible()
    for _ in range(2):
        page.keyboard.press("Control+Shift+Z")
    assert seen(page, (0.2, 0.5), (0.7, 0.5), (0.01, 0.01)) == [RED, CYAN, NONE]

    page.click(f"{PANEL} [data-do=clear]")
    page.click(f"{PANEL} [data-do=plan]")
    assert seen(page, (0.1, 0.5), (0.5, 0.5), (0.9, 0.5)) == [RED, CYAN, LIME]
    page.click(f"{PANEL} [data-do=clear]")
    expect(page.locator(f"{PANEL} .paint-help")).to_be_hidden()
    for _ in ("Draw from the grid", "Open", "the canvas"):
        page.keyboard.press("Tab")
    expect(page.locator(f"{PANEL} .paint-help")).to_be_visible()
    for key in ("b", "1", "ArrowUp", "Space", *["Shift+ArrowLeft"] * 2, "Space", "ArrowUp"):
        page.keyboard.press(key)
    found = seen(page, (0.7, 0.6 - 1 / 64), (0.45, 0.6 - 1 / 64), (0.3, 0.6 - 1 / 64))
    assert found == [RED, RED, NONE], "a line to the left from where the mouse was last"
    for key in ("r", "Space", "Shift+ArrowUp", "Escape"):
        page.keyboard.press(key)
    page.keyboard.press("Control+z")
    assert seen(page, (0.7, 0.6 - 1 / 64)) == [NONE], "what was given up is nothing to take back"

    own = tmp_path / "own.png"
    Image.fromarray(np.array([[[250, 0, 0], [255, 255, 255]]], np.uint8)).save(own)
    drop_file(page, f"{PANEL} .paint-sheet", own)
    page.wait_for_selector(f"{PANEL} .painted")
    assert seen(page, (0.2, 0.5), (0.8, 0.5)) == [(250, 0, 0), NONE], "a picture's own colours stay"


def test_two_painted_halves_are_made_and_come_back(page: Page, server: Server) -> None:
    fill(page, "prompt", f"{PROMPT}\n{SETTINGS}")
    page.click("#txt2img_paste")
    wait_value(page, "seed", 1)
    opened(page, PROMPT, 2)
    page.check(f"{PANEL} .mod-enable input")
    page.click(f"{PANEL} [data-tool=box]")
    drag(page, (0.5, -0.01), (1.01, 1.01))
    page.click(f"{PANEL} [data-paint='1']")
    drag(page, (-0.01, -0.01), (0.5, 1.01))
    assert seen(page, (0, 0.999), (0.999, 0)) == [CYAN, RED]
    generate(page)

    job = newest(server)
    [use] = job["request"]["modules"]
    path = server.outputs / job["outputs"][0]["path"]
    made = pixels(path)
    assert red_over_blue(made[:, 64:]) > 30 and red_over_blue(made[:, :64]) < -15, "as painted, not as the grid"
    recipe, digest = json.loads(Image.open(path).info["recipe"]), use["options"]["mask"]
    assert recipe["request"]["modules"] == [use] and digest in recipe["inputs"]
    with urllib.request.urlopen(f"{server.address}api/v1/inputs/{digest}", timeout=30) as answer:
        painted = Image.open(io.BytesIO(answer.read())).convert("RGB")
    assert painted.size == (512, 512)
    assert [painted.getpixel((x, 256)) for x in (5, 506)] == [(64, 128, 128), (128, 64, 64)], "Regional Prompter's own"

    open_tab(page, "PNG Info")
    page.set_input_files("#pnginfo_image input[type=file]", path)
    page.wait_for_selector("#pnginfo_html_info .info-prompt")
    page.click("#pnginfo_reproduce")
    page.wait_for_selector("#pnginfo_verdict .verdict")
    assert page.locator("#pnginfo_verdict h3").inner_text().lower() == "bit-exact"
    open_tab(page, "txt2img")

    page.reload()
    come_back(page)
    page.click(f"{PANEL} [data-do=clear]")
    fill(page, "prompt", "")
    page.click("#txt2img_paste")
    come_back(page)
    page.click("#txt2img_send_to_img2img")
    come_back(page, "#img2img_module_regional")
    page.wait_for_selector("#img2img_module_regional .paint-under")
