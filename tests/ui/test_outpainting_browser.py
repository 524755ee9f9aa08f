"""Outpainting from the page, on the embedded model: the noise is painted over, and the picture can be made again."""

from __future__ import annotations

import io
import json
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from test_page_browser import choose, fill, generate, newest, open_tab, pixels

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.ui.conftest import Server

pytestmark = pytest.mark.browser
PANEL = "#script_img2img_outpainting_mk2"


def test_a_picture_grows_to_the_right_and_can_be_made_again(page: Page, server: Server, tmp_path: Path) -> None:
    start = tmp_path / "start.png"
    sky = np.zeros((128, 128, 3), np.uint8)
    sky[...] = np.linspace((70, 130, 220), (190, 220, 250), 128)[:, None]
    Image.fromarray(sky).save(start)
    open_tab(page, "img2img")
    page.set_input_files("#img2img_image .canvas-file", start)
    page.wait_for_selector("#img2img_image .has-picture")
    fill(page, "prompt", "a plain blue background", "img2img")
    for field, number in (("width", 128), ("height", 128), ("steps", 12), ("seed", 4), ("denoising_strength", 0.8)):
        fill(page, field, number, "img2img")
    assert page.locator(f"{PANEL}_panel").count() == 0
    choose(page, "#img2img_script_list", "Outpainting mk2")
    page.wait_for_selector(f"{PANEL}_panel")
    for name, number in (("pixels", 64), ("mask_blur", 4)):
        box = page.locator(f"{PANEL}_{name} input[type=number]")
        box.fill(str(number))
        box.press("Tab")
    for side in ("left", "up", "down"):
        page.uncheck(f"{PANEL}_{side} input")
    generate(page, "img2img")

    job = newest(server)
    assert job["state"] == "done" and job["request"]["script"]["options"].items() >= {"pixels": 64, "up": False}.items()
    [output] = job["outputs"]
    path = server.outputs / output["path"]
    made = pixels(path)
    assert made.shape == (128, 192, 3)
    assert np.array_equal(made[:, :64], sky[:, :64]), "far from the seam the picture is as it was, to the byte"
    recipe = json.loads(Image.open(path).info["recipe"])
    with urllib.request.urlopen(
        f"{server.address}api/v1/inputs/{recipe['request']['start']['image']}", timeout=30
    ) as answer:
        began = np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB")).astype(int)
    assert began.shape == made.shape and np.array_equal(began[:, :124], sky[:, :124]), "noise from the mask's edge on"
    edge = [np.abs(levels[:, 124] - levels[:, 123]).mean() for levels in (began, made)]
    assert edge[1] < 0.7 * edge[0], "the edge of the noise is painted over"

    open_tab(page, "PNG Info")
    page.set_input_files("#pnginfo_image input[type=file]", path)
    page.click("#pnginfo_reproduce")
    page.wait_for_selector("#pnginfo_verdict .verdict")
    assert page.locator("#pnginfo_verdict h3").inner_text().lower() == "bit-exact"
