"""The start picture's tabs in Chromium: colours painted on it, colours that are the mask as well, and a batch."""

from __future__ import annotations

import io
import json
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.ui.conftest import Server

pytestmark = pytest.mark.browser

GREY, RED, GREEN = (128, 128, 128), (255, 0, 0), (0, 160, 0)


def job_made(page: Page, server: Server, pictures: int = 1) -> dict[str, Any]:
    """The job that Generate makes, once its pictures stand in the gallery."""
    page.click("#img2img_generate")
    page.wait_for_selector("body.running-img2img")
    page.wait_for_selector("body:not(.running-img2img)")
    with urllib.request.urlopen(f"{server.address}api/v1/jobs?limit=1", timeout=30) as answer:
        [job] = json.load(answer)
    assert job["state"] == "done" and len(job["outputs"]) == pictures, job
    return dict(job)


def stored(server: Server, digest: str, mode: str = "RGB") -> np.ndarray[Any, Any]:
    with urllib.request.urlopen(f"{server.address}api/v1/inputs/{digest}", timeout=30) as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read())).convert(mode))


def open_mode(page: Page, label: str) -> None:
    page.get_by_role("tab", name="img2img", exact=True).first.click()
    page.locator("#mode_img2img").get_by_role("tab", name=label, exact=True).click()
    for field in ("steps", "width", "height"):
        box = page.locator(f"#img2img_{field} input[type=number]")
        box.fill("2" if field == "steps" else "64")
        box.press("Tab")


def stroke(page: Page, canvas: str, height: float, colour: str) -> None:
    """A line over the whole width at a share of the height."""
    page.fill(f"{canvas} .canvas-colour input", colour)
    box = page.locator(f"{canvas} canvas").bounding_box()
    assert box is not None
    y = box["y"] + box["height"] * height
    page.mouse.move(box["x"] + 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, y, steps=4)
    page.mouse.up()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "grey.png"
    Image.new("RGB", (64, 64), GREY).save(path)
    return path


def test_what_is_sketched_is_part_of_the_start_picture(page: Page, server: Server, picture: Path) -> None:
    open_mode(page, "Sketch")
    page.set_input_files("#img2img_sketch .canvas-file", picture)
    page.wait_for_selector("#img2img_sketch .has-picture")
    page.locator("#img2img_sketch canvas").scroll_into_view_if_needed()
    stroke(page, "#img2img_sketch", 0.25, "#ff0000")
    stroke(page, "#img2img_sketch", 0.75, "#00a000")
    start = job_made(page, server)["request"]["start"]
    pixels = stored(server, start["image"])
    assert start["mask"] is None
    assert tuple(pixels[16, 32]) == RED and tuple(pixels[48, 32]) == GREEN and tuple(pixels[32, 32]) == GREY

    page.locator("#img2img_sketch .canvas-box").focus()
    page.keyboard.press("Control+z")
    page.click("#img2img_sketch [data-do=erase]")
    page.fill("#img2img_sketch .canvas-size input", "40")
    stroke(page, "#img2img_sketch", 0.25, "#00a000")
    pixels = stored(server, job_made(page, server)["request"]["start"]["image"])
    assert {tuple(colour) for colour in pixels.reshape(-1, 3)} == {GREY}, "rubbed out and taken back"

    page.click("#img2img_sketch [data-do=erase]")
    stroke(page, "#img2img_sketch", 0.5, "#ff0000")
    page.keyboard.press("Control+z")  # painting has moved the focus there
    page.locator("#img2img_sketch canvas").click(modifiers=["Alt"], position={"x": 8, "y": 120})
    assert page.input_value("#img2img_sketch .canvas-colour input") == "#808080", "the colour under the pointer"
    page.click("#sketch_copy_to_inpaint")
    page.wait_for_selector("#img2maskimg .has-picture")
    assert page.locator("#inpaint_controls").is_visible()


def test_what_is_painted_in_inpaint_sketch_is_the_mask_too(page: Page, server: Server, picture: Path) -> None:
    open_mode(page, "Inpaint sketch")
    page.set_input_files("#inpaint_sketch .canvas-file", picture)
    page.wait_for_selector("#inpaint_sketch .has-picture")
    page.click("#img2img_generate")
    page.wait_for_selector("#img2img_live .live-error:has-text('Nothing is masked')")
    page.locator("#inpaint_sketch canvas").scroll_into_view_if_needed()
    stroke(page, "#inpaint_sketch", 0.25, "#ff0000")
    start = job_made(page, server)["request"]["start"]
    mask, pixels = stored(server, start["mask"]["image"], "L"), stored(server, start["image"])
    assert mask[16, 32] == 255 and mask[48, 32] == 0
    assert tuple(pixels[16, 32]) == RED and tuple(pixels[48, 32]) == GREY


def test_a_batch_is_one_job_with_a_start_and_a_mask_for_each(page: Page, server: Server, tmp_path: Path) -> None:
    open_mode(page, "Batch")
    page.click("#img2img_generate")
    page.wait_for_selector("#img2img_live .live-error:has-text('No pictures are chosen')")
    colours = {"one": RED, "two": GREEN}
    for name, colour in colours.items():
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
        Image.new("L", (64, 64), 255 if name == "one" else 0).save(tmp_path / "masks" / f"{name}.png")
    page.set_input_files("#img2img_batch input[type=file]", [tmp_path / f"{name}.png" for name in colours])
    page.wait_for_selector("#img2img_batch :text('two')")
    page.click("#img2img_batch_masks")
    page.set_input_files(
        "#img2img_batch_inpaint_mask input[type=file]", [tmp_path / "masks" / f"{name}.png" for name in colours]
    )
    page.wait_for_selector("#img2img_batch_inpaint_mask :text('two')")
    job = job_made(page, server, pictures=2)
    assert job["request"]["script"]["name"] == "Batch"
    for output, colour, white in zip(job["outputs"], colours.values(), (255, 0), strict=True):
        path = server.outputs / output["path"]
        recipe = json.loads(Image.open(path).text["recipe"])  # type: ignore[attr-defined]
        start = recipe["request"]["start"]
        assert tuple(stored(server, start["image"])[0, 0]) == colour
        assert stored(server, start["mask"]["image"], "L")[0, 0] == white
    assert np.array_equal(np.asarray(Image.open(path))[0, 0], GREEN), "nothing is made anew where the mask is black"
